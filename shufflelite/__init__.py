"""What every command shares; knows no network."""
