// Internal modes: what the pyhost program does when it starts itself for something other than a script.
//
// `pyhost --pyhost-internal=NAME ...` runs the function registered under NAME before any interpreter exists.
// The option is reserved: it is recognised as the first argument only, and never reaches Python.
//
// To add a mode: declare its function in a header of its own, include that in internal_modes.cc, and add a row
// to the table there.  A mode's function gets argc and argv as the program got them (argv[0] the program,
// argv[1] the option that chose the mode) and returns the exit code.

#ifndef PYHOST_HOST_INTERNAL_MODES_H_
#define PYHOST_HOST_INTERNAL_MODES_H_

#include <optional>

namespace pyhost::host {

inline constexpr char kInternalModeOption[] = "--pyhost-internal=";

// Exit code of a command line that pyhost, or Python, cannot make sense of.
inline constexpr int kUsageError = 2;

struct InternalMode {
  const char* name;
  int (*run)(int argc, char** argv);
};

// Runs the internal mode that argv asks for and returns its exit code, or nothing where argv asks for none.
// An unknown mode is an error on stderr that names it and the known ones.
std::optional<int> RunInternalMode(int argc, char** argv);

}  // namespace pyhost::host

#endif  // PYHOST_HOST_INTERNAL_MODES_H_
