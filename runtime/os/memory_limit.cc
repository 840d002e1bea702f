#include "runtime/os/memory_limit.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "runtime/os/cgroup.h"

namespace pyhost {
namespace {

constexpr double kMaxBytes = 0x1p62;

absl::Status BadSize(std::string_view text) {
  return absl::InvalidArgumentError(
      absl::StrCat("\"", absl::string_view(text.data(), text.size()),
                   "\" is no memory size: expected a number of bytes, or a number with K, M, G or T behind it, "
                   "such as 512M or 2G"));
}

// Takes the unit off the end of `text` and returns what it stands for.
uint64_t ConsumeUnit(absl::string_view* text) {
  if (!absl::ConsumeSuffix(text, "ib")) absl::ConsumeSuffix(text, "b");
  constexpr absl::string_view kUnits = "kmgt";
  for (size_t i = 0; i < kUnits.size(); ++i) {
    if (absl::ConsumeSuffix(text, kUnits.substr(i, 1))) return uint64_t{1} << (10 * (i + 1));
  }
  return 1;
}

uint64_t ResourceLimit(int resource) {
  rlimit limit;
  if (getrlimit(static_cast<__rlimit_resource_t>(resource), &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
    return kNoLimit;
  }
  return limit.rlim_cur;
}

}  // namespace

absl::StatusOr<uint64_t> ParseMemorySize(std::string_view text) {
  const std::string lower =
      absl::AsciiStrToLower(absl::StripAsciiWhitespace(absl::string_view(text.data(), text.size())));
  absl::string_view number = lower;
  const uint64_t unit = ConsumeUnit(&number);
  number = absl::StripTrailingAsciiWhitespace(number);
  // Digits and one point only: "inf", "nan", "1e9", "0x10" and "-1" are no sizes.
  if (number.find_first_not_of("0123456789.") != absl::string_view::npos) return BadSize(text);
  double value = 0;
  if (!absl::SimpleAtod(number, &value) || !std::isfinite(value)) return BadSize(text);
  const double bytes = value * static_cast<double>(unit);
  if (bytes < 1 || bytes > kMaxBytes) return BadSize(text);
  return static_cast<uint64_t>(bytes);
}

std::string FormatMemorySize(uint64_t bytes) {
  if (bytes < 1024) return absl::StrCat(bytes, " bytes");
  double value = static_cast<double>(bytes);
  const char* const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  size_t unit = 0;
  value /= 1024;
  while (value >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
    value /= 1024;
    ++unit;
  }
  if (value == std::floor(value)) return absl::StrFormat("%.0f %s", value, units[unit]);
  return absl::StrFormat("%.1f %s", value, units[unit]);
}

uint64_t PhysicalMemory() {
  return static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

uint64_t AddressSpaceLimit() { return ResourceLimit(RLIMIT_AS); }
uint64_t FileSizeLimit() { return ResourceLimit(RLIMIT_FSIZE); }

absl::StatusOr<uint64_t> DefaultMemoryLimit() {
  if (const char* text = getenv(kMemoryLimitVariable); text != nullptr && *text != '\0') {
    absl::StatusOr<uint64_t> limit = ParseMemorySize(text);
    if (limit.ok()) return limit;
    return absl::InvalidArgumentError(absl::StrCat(kMemoryLimitVariable, ": ", limit.status().message()));
  }
  uint64_t limit = std::min(PhysicalMemory() / 2, FileSizeLimit());
  if (AddressSpaceLimit() != kNoLimit) limit = std::min(limit, AddressSpaceLimit() / 4);
  if (const std::optional<uint64_t> group = CgroupMemoryLimit()) limit = std::min(limit, *group / 2);
  return limit;
}

}  // namespace pyhost
