"""What a conversion leaves on disk: the bundle, its report and card, an app, C source."""
