"""What stands between the convolutional graphs of a detector, in numpy and for every engine."""
