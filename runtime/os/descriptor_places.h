// Gives descriptors the numbers that they are to have, whatever numbers they have now.  Stateless; wants a single
// thread, since it replaces whatever lies at those numbers.

#ifndef PYHOST_RUNTIME_OS_DESCRIPTOR_PLACES_H_
#define PYHOST_RUNTIME_OS_DESCRIPTOR_PLACES_H_

#include <vector>

#include "absl/status/status.h"
#include "runtime/os/unique_fd.h"

namespace pyhost {

struct DescriptorPlace {
  UniqueFd fd;
  int number;
};

// All at once, as in a parallel assignment: `fd` of each becomes `number`, inherited by programs.  Two of them may stand in
// each other's place; that takes one more descriptor for a while, and EMFILE says that there was none.
absl::Status PlaceDescriptors(std::vector<DescriptorPlace> places);

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_OS_DESCRIPTOR_PLACES_H_
