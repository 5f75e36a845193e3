"""The operations that every engine must know: RoIAlign over levels and NMS with fixed rows."""
