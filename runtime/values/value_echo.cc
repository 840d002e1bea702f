// For the test against Python's pickle: reads pickles from stdin, each with its size (8 bytes, little-endian) before it, and
// answers each on stdout in the same form: the value read and written again, or `error: ` and why not.

#include <cstdint>
#include <cstdio>
#include <string>

#include "pyhost/value.h"

namespace {

std::string Answer(const std::string& pickle) {
  absl::StatusOr<pyhost::Value> value = pyhost::DecodeValue<pyhost::Value>(pickle);
  if (!value.ok()) return "error: " + value.status().ToString();
  absl::StatusOr<pyhost::EncodedValue> encoded = pyhost::EncodeValue(*value);
  return encoded.ok() ? encoded->bytes : "error: " + encoded.status().ToString();
}

}  // namespace

int main() {
  for (uint64_t size = 0; fread(&size, sizeof(size), 1, stdin) == 1;) {
    std::string pickle(size, '\0');
    if (fread(pickle.data(), 1, size, stdin) != size) return 1;
    const std::string answer = Answer(pickle);
    size = answer.size();
    fwrite(&size, sizeof(size), 1, stdout);
    fwrite(answer.data(), 1, answer.size(), stdout);
    fflush(stdout);
  }
  return 0;
}
