"""What sequences leave behind and their tokens see: keys and values in slots, and memories of images beside them."""
