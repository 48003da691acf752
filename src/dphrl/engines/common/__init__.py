"""What every training engine adds to the loss of its framework. These modules import no such framework."""
