"""One module a format of annotations: read into a Content, and written from one where others read it."""
