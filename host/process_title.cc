#include "host/process_title.h"

#include <sys/prctl.h>

#include <algorithm>
#include <cstring>
#include <string>

namespace pyhost::host {

void SetProcessTitle(int argc, char** argv, std::string_view title) {
  // The arguments lie one behind the other.
  char* begin = argv[0];
  char* end = begin;
  for (int i = 0; i < argc && argv[i] == end; ++i) end += std::strlen(argv[i]) + 1;
  size_t room = static_cast<size_t>(end - begin);
  if (room > 0) {
    size_t size = std::min(title.size(), room - 1);
    std::memcpy(begin, title.data(), size);
    std::memset(begin + size, 0, room - size);
  }
  prctl(PR_SET_NAME, std::string(title.substr(0, 15)).c_str());
}

}  // namespace pyhost::host
