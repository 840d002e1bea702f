// Where pyhost's own Python modules lie: the folder that holds multiprocessing/, concurrent/ and pyhost/.
//
// Found from the running program alone, never from the environment: in the build tree it is the source tree's
// modules/, everywhere else the folder that `meson install` puts beside the program's (<prefix>/lib/pyhost for
// <prefix>/bin/pyhost), so that an installed tree can be moved as a whole.

#ifndef PYHOST_HOST_MODULES_DIR_H_
#define PYHOST_HOST_MODULES_DIR_H_

#include <string>
#include <vector>

namespace pyhost::host {

struct ModulesDir {
  std::string path;                 // empty: not found
  std::vector<std::string> looked;  // where it was looked for, in order
};

// Looks for the folder, first from the running program, then from a copy of it in `other_folder` (the folder of
// Python's base executable: where a virtual environment made with --copies was copied from); "" for none.
ModulesDir FindModulesDir(const std::string& other_folder);

// Absolute path of the running program, symbolic links resolved; empty where /proc is not mounted.
std::string RunningProgram();

// In an engine's process the running program is not pyhost: this is.  Before the first use of the others.
void SetProgram(const std::string& program);

}  // namespace pyhost::host

#endif  // PYHOST_HOST_MODULES_DIR_H_
