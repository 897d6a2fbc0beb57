# For other parts, which know nothing of _store.
from forebay.store._store cimport BlockStore
