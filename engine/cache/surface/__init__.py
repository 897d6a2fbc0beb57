"""The methods of a Cache, by what they are about; each class is mixed into ``forebay.cache.Cache``."""
