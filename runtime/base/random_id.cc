#include "runtime/base/random_id.h"

#include <errno.h>
#include <sys/random.h>

#include "runtime/base/status_util.h"

namespace pyhost {

absl::StatusOr<uint64_t> NewRandomId() {
  uint64_t id = 0;
  while (id == 0) {
    const ssize_t got = getrandom(&id, sizeof(id), 0);
    if (got < 0 && errno != EINTR) return ErrnoStatus(errno, "getrandom for a session id");
    if (got != sizeof(id)) id = 0;
  }
  return id;
}

}  // namespace pyhost
