"""Where pictures come from besides image files: archives, addresses, videos and cameras."""
