#include "runtime/broker/object_kinds.h"

#include "runtime/broker/pool_state.h"
#include "runtime/queue/queue.h"
#include "runtime/sync/barrier.h"
#include "runtime/sync/condition.h"
#include "runtime/sync/event.h"
#include "runtime/sync/mutex.h"
#include "runtime/sync/semaphore.h"

namespace pyhost {

void RegisterObjectKinds() {
  RegisterQueueKind();
  RegisterMutexKind();
  RegisterSemaphoreKind();
  RegisterConditionKind();
  RegisterEventKind();
  RegisterBarrierKind();
  RegisterPoolKind();
}

}  // namespace pyhost
