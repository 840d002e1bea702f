// pyhost's own lines under python3's --help.

#ifndef PYHOST_HOST_HELP_H_
#define PYHOST_HOST_HELP_H_

#include <string>
#include <vector>

namespace pyhost::host {

// Prints them where the command line asked for help (-h, -?, --help, --help-all); else prints nothing.
void PrintHelpOfPyhost(const std::vector<std::string>& argv);

}  // namespace pyhost::host

#endif  // PYHOST_HOST_HELP_H_
