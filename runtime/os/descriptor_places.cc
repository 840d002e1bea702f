#include "runtime/os/descriptor_places.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/base/status_util.h"
#include "runtime/os/unix_socket.h"

namespace pyhost {
namespace {

using Places = std::vector<DescriptorPlace>;

// The one that has this number now.
Places::iterator Occupant(Places& places, int number) {
  return std::find_if(places.begin(), places.end(), [=](const DescriptorPlace& each) { return each.fd.get() == number; });
}

bool IsThere(const DescriptorPlace& place) { return place.fd.get() == place.number; }

absl::Status Place(DescriptorPlace& place) {
  if (!IsThere(place)) {
    if (dup2(place.fd.get(), place.number) >= 0) return absl::OkStatus();
    return ErrnoStatus(errno, absl::StrCat("dup2 to descriptor ", place.number));
  }
  if (fcntl(place.fd.release(), F_SETFD, 0) != 0) return ErrnoStatus(errno, "fcntl(F_SETFD)");
  return absl::OkStatus();
}

}  // namespace

absl::Status PlaceDescriptors(Places places) {
  while (!places.empty()) {
    auto next = std::find_if(places.begin(), places.end(), [&](const DescriptorPlace& each) {
      return IsThere(each) || Occupant(places, each.number) == places.end();
    });
    if (next == places.end()) {
      // Each waits for another one, hence in circles: one that moves aside opens its own.
      next = places.begin();
      UniqueFd& occupant = Occupant(places, next->number)->fd;
      PYHOST_ASSIGN_OR_RETURN(occupant, DuplicateHigh(occupant.get()));
    }
    PYHOST_RETURN_IF_ERROR(Place(*next));
    places.erase(next);
  }
  return absl::OkStatus();
}

}  // namespace pyhost
