#include "host/help.h"

#include <patchlevel.h>

#include <cstdio>
#include <string_view>

namespace pyhost::host {
namespace {

// The options that take a value, which may stand in the same word.
constexpr std::string_view kWithValue = "cmWXQ";

// Python has accepted this command line and printed something, so it is well formed: the first request wins.
bool AsksForHelp(const std::vector<std::string>& argv) {
  for (size_t i = 1; i < argv.size(); ++i) {
    std::string_view word = argv[i];
    if (word == "--help" || word == "--help-all") return true;
    if (word == "--check-hash-based-pycs") ++i;
    if (word.starts_with("--")) continue;
    for (size_t letter = 1; letter < word.size(); ++letter) {
      if (word[letter] == 'h' || word[letter] == '?') return true;
      if (kWithValue.find(word[letter]) == std::string_view::npos) continue;
      if (letter + 1 == word.size()) ++i;
      break;
    }
  }
  return false;
}

}  // namespace

void PrintHelpOfPyhost(const std::vector<std::string>& argv) {
  if (!AsksForHelp(argv)) return;
  std::printf(
      "\nThis is pyhost %s: Python %s with a multiprocessing of its own.  An activated virtual environment\n"
      "(VIRTUAL_ENV) is used unless -E or -I is given.  -X preload=NAME,NAME: modules that child processes find imported\n"
      "(start methods spawn and forkserver), as the fork server imported them once.\n",
      PYHOST_VERSION, PY_VERSION);
}

}  // namespace pyhost::host
