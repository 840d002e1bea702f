// HandOver: one direction of a connection gives a small message to a reader that waits for it at this very moment, through
// shared memory, past the descriptor: without a system call for the bytes.  Everything else goes by descriptor, and
// whoever polls, shares or passes on the descriptor sees no difference: a message is handed over only while a
// reader is inside its receiving call, spinning, and only if all that was written before has been read.
//
//   word: {turn:32 | reader's HostId:30 | phase:2}
//
//             Announce()             Give()               Take()
//      Idle ------------> Waiting ----------> Given ----------------> Idle
//                            |   Withdraw()
//                            +--------------------------------------> Idle, then the reader turns to the descriptor
//
// Age.  What is sent when a program knows of the reader's death must be where everybody can see it, and the host table learns of it
// up to 300 ms later.  So nothing is given for an announcement older than a reader spins: nobody dies, is taken apart by the
// kernel, and is seen to have done so within the 100 us that are left to it.
//
// Order.  A giver first sees Waiting, then an empty descriptor, then changes that same announcement (`turn`) to Given: had
// a reader turned to the descriptor meanwhile, it would have withdrawn.  So what is handed over is younger than all that
// was read before, and the reader takes it before it reads on.
//
// Death.  A reader that dies Waiting is passed over: givers see that its life has ended, the next reader replaces it.  What was
// Given to a reader that died before it took it is the next reader's, who has to look (IsLeftBehind) before it turns to the
// descriptor, whether it means to spin or not, and from time to time while it sleeps there: that the other is dead may
// become known later.  A giver that dies has given or has not; its lock is taken over by the next giver.  A reader that is
// stopped keeps what it was given, and all else goes by descriptor meanwhile.
//
// HandOver is a view of a lane in a block of shared memory, which outlives it, for one host.  Lanes are process-safe.  Any
// number of givers; readers may be many, but one view is one reader's, for one message at a time.

#ifndef PYHOST_RUNTIME_QUEUE_HAND_OVER_H_
#define PYHOST_RUNTIME_QUEUE_HAND_OVER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "runtime/base/ids.h"
#include "runtime/sync/owner_lock.h"

namespace pyhost {

class HostTable;

// In shared memory; all-zero is a valid start.
struct HandOverLane {
  static constexpr size_t kMaxBytes = 1920;
  alignas(64) std::atomic<uint64_t> word;
  std::atomic<uint32_t> comes_by_hand;  // the last message did: a hint of readers to themselves
  std::atomic<int64_t> announced_at;    // by the monotonic clock; never younger than the announcement in `word`
  alignas(64) OwnerLock giving;         // who writes `size` and `bytes`
  std::atomic<uint32_t> size;
  alignas(64) std::byte bytes[kMaxBytes];
};
static_assert(sizeof(HandOverLane) == 2048);

class HandOver {
 public:
  HandOver(HandOverLane* lane, const HostTable& hosts, HostId me) : lane_(lane), hosts_(hosts), me_(me) {}

  // The giver's.  False: nobody waits, the message is too large, or the descriptor is not empty; then it has to go
  // that way.  `is_empty`, whether all that was written to the descriptor has been read, is asked only when it matters.
  bool Give(std::span<const std::byte> message, absl::FunctionRef<bool()> is_empty);

  // The reader's.  Announce -> Given? ... -> Withdraw -> Take, if it could not be withdrawn.
  // False: another reader is announced.
  bool Announce();
  bool Given() const { return lane_->word.load(std::memory_order_acquire) == WordOf(kGiven); }
  bool Withdraw();
  // Copies the message to `to`, of kMaxBytes, and returns its size.  DataLoss if the memory is damaged.
  absl::StatusOr<size_t> Take(std::span<std::byte> to);

  // Something was given to a reader that has died since: to be announced for, and taken, before anything is read.
  bool IsLeftBehind() const;
  bool comes_by_hand() const { return lane_->comes_by_hand.load(std::memory_order_relaxed) != 0; }
  void set_comes_by_hand(bool by_hand);

 private:
  enum Phase : uint64_t { kIdle = 0, kWaiting = 1, kGiven = 2 };
  static Phase PhaseOf(uint64_t word) { return static_cast<Phase>(word & 3); }
  static HostId ReaderOf(uint64_t word) { return HostId::FromValue(static_cast<uint32_t>(word >> 2) & kHostMask); }
  static uint32_t TurnOf(uint64_t word) { return static_cast<uint32_t>(word >> 32); }
  static constexpr uint32_t kHostMask = (uint32_t{1} << 30) - 1;
  uint64_t WordOf(Phase phase) const { return uint64_t{turn_} << 32 | uint64_t{me_.value()} << 2 | phase; }

  bool ReaderIsDead(uint64_t word) const;
  bool ReaderIsGone(uint64_t word) const;  // asks the system too: slow
  bool LockForGiving();
  bool GiveLocked(std::span<const std::byte> message, absl::FunctionRef<bool()> is_empty);

  HandOverLane* const lane_;
  const HostTable& hosts_;
  const HostId me_;
  uint32_t turn_ = 0;  // of my announcement
};

}  // namespace pyhost

#endif  // PYHOST_RUNTIME_QUEUE_HAND_OVER_H_
