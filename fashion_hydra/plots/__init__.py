"""Pictures made with matplotlib and Pillow."""
