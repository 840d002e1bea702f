// The name under which ps and top show a process.

#ifndef PYHOST_HOST_PROCESS_TITLE_H_
#define PYHOST_HOST_PROCESS_TITLE_H_

#include <string_view>

namespace pyhost::host {

// Overwrites the memory of the command line, which nobody may need any more; cut to what fits.  The name of the main
// thread becomes the title's first 15 bytes.
void SetProcessTitle(int argc, char** argv, std::string_view title);

}  // namespace pyhost::host

#endif  // PYHOST_HOST_PROCESS_TITLE_H_
