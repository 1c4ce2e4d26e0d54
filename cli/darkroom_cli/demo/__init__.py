"""`darkroom demo`: photos in, pictures out, through the public interfaces."""
