"""What every training engine does beside the loss of its framework; nothing here knows of TRL or verl."""
