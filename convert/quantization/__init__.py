"""Float deployment form -> the form that an int8 file rounds to, trained in it or not."""
