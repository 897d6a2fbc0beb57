cdef object new_entry(tuple values)
