// Included before everything else in every source file of runtime/ (by the build, with -include).
//
// The runtime is what a C++ engine links: it must not know Python.  Poisoning the guard of Python.h, and the
// type that every one of its headers uses, makes any way of including it a compile error that names it.
#pragma GCC poison Py_PYTHON_H PyObject
