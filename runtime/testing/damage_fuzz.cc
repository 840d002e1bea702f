// Fuzz target: whatever stands in a session's shared memory, the operations on it give a Status; none reads or writes
// outside of the segment, and none goes on for ever.
//
// The input changes words of a live segment with one object of each kind, then runs operations.  Two things are left out
// of it, because a living process could mean them: an internal lock (OwnerLock) that somebody alive holds is waited
// for, and so is a user's lock without a deadline.

#include <array>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/broker/call_client.h"
#include "runtime/broker/call_server.h"
#include "runtime/broker/object_kinds.h"
#include "runtime/queue/queue.h"
#include "runtime/queue/queue_layout.h"
#include "runtime/segment/handle_refs.h"
#include "runtime/segment/layout.h"
#include "runtime/segment/segment_map.h"
#include "runtime/sync/barrier.h"
#include "runtime/sync/condition.h"
#include "runtime/sync/event.h"
#include "runtime/sync/mutex.h"
#include "runtime/sync/semaphore.h"
#include "runtime/sync/sync_layout.h"
#include "runtime/testing/fuzz_target.h"
#include "runtime/testing/temp_segment.h"

namespace pyhost {
namespace {

using testing::FuzzInput;
using testing::FuzzReader;
using testing::TempSegment;

void Touch(std::span<const std::byte> bytes) {
  uint64_t sum = 0;
  for (size_t i = 0; i < bytes.size(); i += 61) sum += static_cast<uint64_t>(bytes[i]);
  if (!bytes.empty()) sum += static_cast<uint64_t>(bytes.back());
  volatile uint64_t seen = sum;
  static_cast<void>(seen);
}

Wait Soon() { return {Deadline::After(absl::Microseconds(200)), nullptr}; }

// A segment in the middle of its work.
class World {
 public:
  World() {
    RegisterObjectKinds();
    dead_ = segment_.NewHost("dead");
    queues_ = {Adopted(*Queue::Create(*segment_, me_, 4)), Adopted(*Queue::Create(*segment_, me_))};
    memory_ = *segment_.objects().Create(ObjectKind::kMemory, 300, me_);
    segment_->refs().Adopt(memory_, me_);
    mutexes_ = {Adopted(*Mutex::Create(*segment_, me_, Mutex::Type::kPlain)),
                Adopted(*Mutex::Create(*segment_, me_, Mutex::Type::kRecursive))};
    semaphore_.emplace(Adopted(*Semaphore::Create(*segment_, me_, 1, 3)));
    event_.emplace(Adopted(*Event::Create(*segment_, me_)));
    condition_.emplace(Adopted(*Condition::Create(*segment_, me_)));
    barrier_.emplace(Adopted(*Barrier::Create(*segment_, me_, 2)));
    client_ = *CallClient::Create(*segment_, me_, 4);
    server_ = *CallServer::Open(*segment_, me_, client_->handle());
    group_ = client_->NewGroup();
    Fill();
    segment_.objects().DuplicateHolds(me_, dead_);
    segment_.hosts().SetExit(dead_, {ExitStatus::Kind::kSignaled, 9}, true);
  }

  // Overwrites one word with a value, a small change of itself, or the word at another place.
  void Damage(FuzzReader& input) {
    std::byte* base = segment_->map().base();
    const auto how = input.Choice(4);
    const uint64_t size = uint64_t{1} << input.Choice(4);  // 1 to 8 bytes
    std::byte* to = base + Place(input) / size * size;
    uint64_t value = 0;
    std::memcpy(&value, to, size);
    if (how == 0) value = input.Number(size);
    if (how == 1) value += static_cast<uint64_t>(static_cast<int8_t>(input.Number(1)));
    if (how == 2) value = ~uint64_t{0} >> input.Choice(64);
    if (how == 3) std::memcpy(&value, base + Place(input) / size * size, size);
    std::memcpy(to, &value, size);
  }

  // See the top: locks that a living host seems to hold are free.
  void FreeLocksOfTheLiving(bool of_the_dead_too) {
    const auto free = [&](OwnerLock& lock) {
      const HostId owner = lock.owner();
      const bool dead = !HostMayBeAlive(segment_.hosts(), owner) || segment_.hosts().ProcessIsGone(owner);
      if (!dead || of_the_dead_too) std::memset(static_cast<void*>(&lock), 0, sizeof(lock));
    };
    free(segment_->map().header().allocator.lock);
    for (uint32_t index = 0; index < segment_->map().max_objects(); ++index) {
      std::byte* state = segment_->map().cell(index).state;
      switch (static_cast<ObjectKind>(segment_->map().cell(index).life.load() >> 2 & 0xff)) {
        case ObjectKind::kQueue:
          free(reinterpret_cast<QueueState*>(state)->push_lock);
          free(reinterpret_cast<QueueState*>(state)->pop_lock);
          break;
        case ObjectKind::kCondition:
          free(reinterpret_cast<ConditionState*>(state)->waiters.lock);
          break;
        case ObjectKind::kBarrier:
          free(reinterpret_cast<BarrierState*>(state)->waiters.lock);
          break;
        default:
          break;
      }
    }
  }

  void Operate(FuzzReader& input) {
    switch (input.Choice(20)) {
      case 0: return PushText(queues_[input.Choice(2)], 1 + input.Number(2));
      case 1: return PushHandles(queues_[input.Choice(2)]);
      case 2: return PopOne(queues_[input.Choice(2)]);
      case 3: return PopMany(queues_[input.Choice(2)]);
      case 4: return LookAtQueue(queues_[input.Choice(2)]);
      case 5: return queues_[input.Choice(2)].Close();
      case 6: return CreateAndDrop(input.Number(3));
      case 7: return UseHandle(Handle::FromValue(input.Number(8)));
      case 8: return UseHandle(AnyHandle(input));
      case 9: return UseMutex(mutexes_[input.Choice(2)]);
      case 10: return UseSemaphore(static_cast<uint32_t>(input.Number(1)));
      case 11: return UseEvent();
      case 12: return UseCondition(static_cast<uint32_t>(input.Number(1)));
      case 13: return UseBarrier(input.Choice(4));
      case 14: return LookAtHosts(HostId::FromValue(static_cast<uint32_t>(input.Number(4))));
      case 15: return segment_.objects().Recover(dead_, me_);
      case 16: return segment_.objects().RecountTransits(me_).IgnoreError();
      case 17: return Serve();
      case 18: return Call(static_cast<uint32_t>(input.Choice(3)));
      default: return static_cast<void>(Segment::Attach(segment_->fd()));
    }
  }

 private:
  template <typename T>
  T Adopted(T object) {
    segment_->refs().Adopt(object.handle(), me_);
    return object;
  }

  void Fill() {
    for (int i = 0; i < 60; ++i) PushText(queues_[1], 100);
    PushText(queues_[0], 20'000);
    PushHandles(queues_[0]);
    PushHandles(queues_[1]);
    for (int i = 0; i < 5; ++i) PopOne(queues_[1]);
    static_cast<void>(mutexes_[1].Acquire(Wait::Try()));
    Call(3);
    static_cast<void>(server_->Next(Wait::Try()));
  }

  // Mostly where something is: header, hosts, objects with their holders, pages; the first blocks.
  uint64_t Place(FuzzReader& input) {
    const SegmentMap& map = segment_->map();
    switch (input.Choice(8)) {
      case 0: return input.Choice(sizeof(SegmentHeader));
      case 1: return OffsetOf(&map.host(0)) + input.Choice(3 * sizeof(HostRecord));
      case 2: return OffsetOf(&map.page(0)) + input.Choice(40 * sizeof(PageInfo));
      case 3: return map.blocks_offset() + input.Choice(20 * kPageBytes);
      case 4: return OffsetOf(&map.commit_word(0)) + input.Choice(16);
      default: return OffsetOf(&map.cell(static_cast<uint32_t>(input.Choice(24)))) + input.Choice(sizeof(ObjectCell) + 8);
    }
  }
  uint64_t OffsetOf(const void* at) {
    return static_cast<uint64_t>(static_cast<const std::byte*>(at) - segment_->map().base());
  }
  Handle AnyHandle(FuzzReader& input) {
    const auto index = static_cast<uint32_t>(input.Choice(24));
    const uint64_t life = segment_->map().cell(index).life.load();
    return Handle(static_cast<ObjectKind>(life >> 2 & 0xff), static_cast<uint32_t>(life >> 10 & 0xffffff), index);
  }

  // ---- Operations ----

  void PushText(Queue& queue, uint64_t size) {
    const std::vector<std::byte> bytes(size, std::byte{7});
    const std::array<std::span<const std::byte>, 1> parts = {bytes};
    queue.Push({.parts = parts, .handles = {}, .tag = size}, Wait::Try()).IgnoreError();
  }
  void PushHandles(Queue& queue) {
    const std::array handles = {memory_, queues_[1].handle()};
    queue.Push({.parts = {}, .handles = handles, .tag = 1}, Wait::Try()).IgnoreError();
  }
  void PopOne(Queue& queue) {
    const absl::StatusOr<Message> message = queue.Pop(Wait::Try());
    if (message.ok()) Touch(message->payload());
  }
  void PopMany(Queue& queue) {
    const absl::StatusOr<std::vector<Message>> messages = queue.PopBatch(200, Soon());
    if (!messages.ok()) return;
    for (const Message& message : *messages) Touch(message.payload());
  }
  void LookAtQueue(Queue& queue) {
    static_cast<void>(queue.depth() + queue.popped() + queue.max_items());
    queue.WaitReadable(Soon()).IgnoreError();
  }
  void CreateAndDrop(uint64_t size) {
    const absl::StatusOr<Handle> handle = segment_.objects().Create(ObjectKind::kMemory, size, me_);
    if (!handle.ok()) return;
    if (absl::StatusOr<std::span<std::byte>> block = segment_.objects().Block(*handle); block.ok()) Touch(*block);
    segment_.objects().Drop(*handle, me_, me_);
  }
  void UseHandle(Handle handle) {
    if (!segment_->refs().Retain(handle, me_).ok()) return;
    if (absl::StatusOr<std::span<std::byte>> block = segment_.objects().Block(handle); block.ok()) Touch(*block);
    if (auto queue = Queue::Open(*segment_, me_, handle); queue.ok()) PopOne(*queue);
    if (auto mutex = Mutex::Open(*segment_, me_, handle); mutex.ok()) UseMutex(*mutex);
    if (auto barrier = Barrier::Open(*segment_, me_, handle); barrier.ok()) barrier->Abort();
    static_cast<void>(CallServer::Open(*segment_, me_, handle));
    segment_->refs().Release(handle, me_);
  }
  void UseMutex(Mutex mutex) {
    mutex.Acquire(Soon()).IgnoreError();
    mutex.Release().IgnoreError();
  }
  void UseSemaphore(uint32_t count) {
    semaphore_->Acquire(Soon()).IgnoreError();
    semaphore_->Release(count).IgnoreError();
  }
  void UseEvent() {
    event_->WaitUntilSet(Soon()).IgnoreError();
    event_->Set();
    event_->Clear();
  }
  void UseCondition(uint32_t count) {
    static_cast<void>(condition_->waiting() + condition_->Notify(count) + condition_->NotifyAll());
  }
  void UseBarrier(uint64_t how) {
    if (how == 0) static_cast<void>(barrier_->Arrive(Soon()));
    if (how == 1) barrier_->Reset();
    if (how == 2) barrier_->Abort();
    static_cast<void>(barrier_->n_waiting());
  }
  void LookAtHosts(HostId id) {
    HostTable& hosts = segment_.hosts();
    for (const HostInfo& info : hosts.List()) static_cast<void>(info.Describe() + info.exit.ToString());
    static_cast<void>(hosts.Info(id));
    static_cast<void>(hosts.Exit(id));
    static_cast<void>(hosts.WaitForExit(dead_, Wait::Try()));
    static_cast<void>(hosts.WaitForPid(id, Wait::Try()));
    if (absl::StatusOr<HostId> embryo = hosts.CreateEmbryo({.parent = me_, .name = "another"}); embryo.ok()) {
      hosts.SetRunning(*embryo, "a function");
      hosts.SetExit(*embryo, {ExitStatus::Kind::kNotStarted, 2}, true);
      if (hosts.BeginRecovery(*embryo, me_)) hosts.FinishRecovery(*embryo);
      hosts.Unwatch(*embryo, me_);
    }
    hosts.DropWatches(dead_);
  }
  void Serve() {
    const absl::StatusOr<Message> call = server_->Next(Wait::Try());
    if (call.ok()) static_cast<void>(ParseCall(call->payload()));
    server_->Reply(ReplyKind::kValue, {}, {}).IgnoreError();
  }
  void Call(uint32_t calls) {
    if (absl::StatusOr<CallId> first = client_->Register(group_, calls, 0); calls != 0 && first.ok()) {
      const CallHeader header{.kind = CallKind::kOne, .flags = 0, .reserved = 0, .limit_millis = 0, .function_size = 0};
      const std::array parts = {AsBytes(header)};
      for (uint32_t i = 0; i < calls; ++i) {
        const MessageView call{.parts = parts, .handles = {}, .tag = first->value() + i};
        absl::Status status;
        if (client_->Push({&call, 1}, Wait::Try(), &status) == 0) {
          client_->Withdraw(CallId::FromValue(call.tag), 1);
        }
      }
      client_->Cancel(*first);
    }
    client_->WaitForArrival(*group_, Soon()).IgnoreError();
    for (const Arrival& arrival : client_->Take(*group_, 10)) Touch(arrival.message.payload());
    static_cast<void>(client_->Figures());
    static_cast<void>(client_->answered() + client_->CountUnanswered() + client_->queued());
  }

  TempSegment segment_{{.limit = 1 << 20, .max_hosts = 64, .max_objects = 64}};
  const HostId me_ = segment_.me();
  HostId dead_;
  std::vector<Queue> queues_;
  Handle memory_;
  std::vector<Mutex> mutexes_;
  std::optional<Semaphore> semaphore_;
  std::optional<Event> event_;
  std::optional<Condition> condition_;
  std::optional<Barrier> barrier_;
  std::unique_ptr<CallClient> client_;
  std::unique_ptr<CallServer> server_;
  std::shared_ptr<CallGroup> group_;
};

PYHOST_FUZZ_TARGET(Damage, "runtime/testing/damage_corpus", kWholeOnly) {
  constexpr int kMostSteps = 40;
  FuzzReader reader(input);
  World world;
  const bool keep_locks_of_the_dead = reader.Choice(32) == 31;
  for (uint64_t damages = 1 + reader.Choice(12); damages > 0; --damages) world.Damage(reader);
  world.FreeLocksOfTheLiving(!keep_locks_of_the_dead);
  for (int step = 0; step < kMostSteps && !reader.empty(); ++step) world.Operate(reader);
}

}  // namespace
}  // namespace pyhost
