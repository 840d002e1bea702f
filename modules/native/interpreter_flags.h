// The command-line options that give another interpreter the settings of this one.

#ifndef PYHOST_MODULES_NATIVE_INTERPRETER_FLAGS_H_
#define PYHOST_MODULES_NATIVE_INTERPRETER_FLAGS_H_

#include <string>
#include <vector>

namespace pyhost::native {

// From sys.flags, sys.warnoptions and sys._xoptions as they are now; the settings that python3 hands on to the children
// of multiprocessing.  False with a Python error.
bool InterpreterFlags(std::vector<std::string>* flags);

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_INTERPRETER_FLAGS_H_
