// Random numbers that nobody can guess, from the kernel.

#ifndef PYHOST_RUNTIME_BASE_RANDOM_ID_H_
#define PYHOST_RUNTIME_BASE_RANDOM_ID_H_

#include <cstdint>

#include "absl/status/statusor.h"

namespace pyhost {

// A session id: 64 random bits, never 0.  Unavailable when the kernel gives none.
absl::StatusOr<uint64_t> NewRandomId();

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_BASE_RANDOM_ID_H_
