#include "runtime/base/ids.h"

#include "absl/strings/str_cat.h"

namespace pyhost {
namespace {

std::string KindName(ObjectKind kind) {
  switch (kind) {
    case ObjectKind::kNone: return "object";
    case ObjectKind::kMemory: return "memory";
    case ObjectKind::kChunk: return "chunk";
    case ObjectKind::kQueue: return "queue";
    case ObjectKind::kMutex: return "mutex";
    case ObjectKind::kSemaphore: return "semaphore";
    case ObjectKind::kCondition: return "condition";
    case ObjectKind::kEvent: return "event";
    case ObjectKind::kBarrier: return "barrier";
    case ObjectKind::kPool: return "pool";
  }
  return absl::StrCat("object of unknown kind ", static_cast<int>(kind));
}

}  // namespace

std::string HostId::ToString() const {
  if (!*this) return "no host";
  return absl::StrCat("host ", slot(), ".", generation());
}

std::string Handle::ToString() const {
  if (!*this) return "no object";
  return absl::StrCat(KindName(kind()), " ", index(), ".", generation());
}

}  // namespace pyhost
