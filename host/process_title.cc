#include "host/process_title.h"

#include <sys/prctl.h>

#include <algorithm>
#include <cstring>
#include <string>

namespace pyhost::host {

namespace {

struct CommandLine {
  char* begin = nullptr;
  size_t room = 0;
} command_line;

}  // namespace

void KeepCommandLine(int argc, char** argv) {
  // The arguments lie one behind the other.
  char* end = argv[0];
  for (int i = 0; i < argc && argv[i] == end; ++i) end += std::strlen(argv[i]) + 1;
  command_line = {argv[0], static_cast<size_t>(end - argv[0])};
}

void SetProcessTitle(std::string_view title) {
  if (command_line.room > 0) {
    size_t size = std::min(title.size(), command_line.room - 1);
    std::memcpy(command_line.begin, title.data(), size);
    std::memset(command_line.begin + size, 0, command_line.room - size);
  }
  prctl(PR_SET_NAME, std::string(title.substr(0, 15)).c_str());
}

}  // namespace pyhost::host
