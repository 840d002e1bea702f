// The name under which ps and top show a process.

#ifndef PYHOST_HOST_PROCESS_TITLE_H_
#define PYHOST_HOST_PROCESS_TITLE_H_

#include <string_view>

namespace pyhost::host {

// Where the command line lies in memory.  Nobody may need it any more when a title is set.
void KeepCommandLine(int argc, char** argv);

// Overwrites the command line, cut to what fits.  The name of the calling thread becomes the title's first 15 bytes.
void SetProcessTitle(std::string_view title);

}  // namespace pyhost::host

#endif  // PYHOST_HOST_PROCESS_TITLE_H_
