// How much memory a session's segment may use.  Thread-safe.

#ifndef PYHOST_RUNTIME_OS_MEMORY_LIMIT_H_
#define PYHOST_RUNTIME_OS_MEMORY_LIMIT_H_

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace pyhost {

inline constexpr char kMemoryLimitVariable[] = "PYHOST_MEMORY_LIMIT";
inline constexpr uint64_t kNoLimit = std::numeric_limits<uint64_t>::max();

// "512M", "2G", "1.5G", "65536" (bytes); K, M, G, T are powers of 1024, with an optional "iB" or "B" behind,
// in either case.  InvalidArgument that quotes the text and says what is expected.
absl::StatusOr<uint64_t> ParseMemorySize(std::string_view text);

// "64 MiB", "1.5 GiB", "100 bytes": for messages.
std::string FormatMemorySize(uint64_t bytes);

uint64_t PhysicalMemory();
uint64_t AddressSpaceLimit();  // RLIMIT_AS, or kNoLimit
uint64_t FileSizeLimit();      // RLIMIT_FSIZE, or kNoLimit

// The environment variable PYHOST_MEMORY_LIMIT if set, else the least of half of RAM, half of the tightest cgroup
// limit, a quarter of RLIMIT_AS, and RLIMIT_FSIZE.
absl::StatusOr<uint64_t> DefaultMemoryLimit();

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_OS_MEMORY_LIMIT_H_
