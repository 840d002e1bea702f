#include "runtime/segment/object_table.h"

#include <sys/mman.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/base/crash_point.h"
#include "runtime/segment/layout.h"
#include "runtime/segment/segment_map.h"
#include "runtime/testing/temp_segment.h"

namespace pyhost {
namespace {

using testing::Child;
using testing::Exited;
using testing::Killed;
using testing::KillAtCrashPoint;
using testing::TempSegment;
using ::testing::HasSubstr;

class ObjectTableTest : public ::testing::Test {
 protected:
  Handle CreateMemory(uint64_t size, HostId holder) {
    absl::StatusOr<Handle> handle = objects_.Create(ObjectKind::kMemory, size, holder);
    EXPECT_TRUE(handle.ok()) << handle.status();
    return handle.ok() ? *handle : Handle();
  }
  Handle CreateMemory(uint64_t size) { return CreateMemory(size, segment_.me()); }
  std::span<std::byte> BlockOf(Handle handle) {
    absl::StatusOr<std::span<std::byte>> block = objects_.Block(handle);
    EXPECT_TRUE(block.ok()) << block.status();
    return block.ok() ? *block : std::span<std::byte>();
  }
  void Drop(Handle handle) { objects_.Drop(handle, segment_.me(), segment_.me()); }
  bool Exists(Handle handle) { return objects_.State(handle).ok(); }
  void ExpectNothingLeft() {
    EXPECT_EQ(segment_->Usage().used_bytes, 0u);
    EXPECT_EQ(segment_->Usage().objects, 0u);
  }
  // Allocates all there is in pieces, writes to it, and gives it back.
  void ExpectAllMemoryWorks(uint64_t piece) {
    std::vector<Handle> pieces;
    for (;;) {
      absl::StatusOr<Handle> handle = objects_.Create(ObjectKind::kMemory, piece, segment_.me());
      if (!handle.ok()) break;
      std::span<std::byte> block = BlockOf(*handle);
      block.front() = block.back() = std::byte{1};
      pieces.push_back(*handle);
    }
    EXPECT_GE(pieces.size() * piece, segment_->Usage().limit_bytes - piece - (256 << 10));
    for (Handle handle : pieces) Drop(handle);
  }

  TempSegment segment_;
  ObjectTable& objects_ = segment_.objects();
};

TEST_F(ObjectTableTest, NewObjectIsHeldZeroedAndHasItsBlock) {
  const Handle handle = CreateMemory(100'000);
  EXPECT_EQ(handle.kind(), ObjectKind::kMemory);
  EXPECT_TRUE(objects_.IsHeld(handle, segment_.me()));
  EXPECT_EQ(objects_.Block(handle)->size(), 100'000u);
  const std::byte* state = *objects_.State(handle);
  for (size_t i = 0; i < ObjectTable::kStateBytes; ++i) ASSERT_EQ(state[i], std::byte{0});
  EXPECT_EQ(reinterpret_cast<uintptr_t>(state) % 64, 0u);
}

TEST_F(ObjectTableTest, LastDropFreesTheObject) {
  const Handle handle = CreateMemory(100'000);
  Drop(handle);
  EXPECT_FALSE(Exists(handle));
  ExpectNothingLeft();
}

TEST_F(ObjectTableTest, HoldersAreIdempotent) {
  const HostId other = segment_.NewHost();
  const Handle handle = CreateMemory(64);
  ASSERT_TRUE(objects_.Hold(handle, other).ok());
  ASSERT_TRUE(objects_.Hold(handle, other).ok());
  Drop(handle);
  EXPECT_TRUE(Exists(handle));
  objects_.Drop(handle, other, segment_.me());
  EXPECT_FALSE(Exists(handle));
  objects_.Drop(handle, other, segment_.me());
  ExpectNothingLeft();
}

TEST_F(ObjectTableTest, TransitKeepsTheObjectAlive) {
  const Handle handle = CreateMemory(64);
  ASSERT_TRUE(objects_.AddTransit(handle).ok());
  Drop(handle);
  EXPECT_TRUE(Exists(handle));
  objects_.EndTransit(handle, segment_.me());
  EXPECT_FALSE(Exists(handle));
}

TEST_F(ObjectTableTest, StaleAndForeignHandlesAreNotFound) {
  const Handle old = CreateMemory(64);
  Drop(old);
  const Handle young = CreateMemory(64);
  ASSERT_EQ(old.index(), young.index());  // the cell is used again
  const Handle other_kind(ObjectKind::kQueue, young.generation(), young.index());
  const Handle out_of_range(ObjectKind::kMemory, 1, 0xffffffff);
  for (const Handle wrong : {old, other_kind, out_of_range, Handle()}) {
    EXPECT_EQ(objects_.State(wrong).status().code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(objects_.Block(wrong).status().code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(objects_.Hold(wrong, segment_.me()).code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(objects_.AddTransit(wrong).code(), absl::StatusCode::kNotFound);
    objects_.EndTransit(wrong, segment_.me());
    objects_.Drop(wrong, segment_.me(), segment_.me());
    EXPECT_FALSE(objects_.IsHeld(wrong, segment_.me()));
  }
  EXPECT_THAT(std::string(objects_.State(old).status().message()), HasSubstr(old.ToString()));
  EXPECT_TRUE(Exists(young));
}

TEST_F(ObjectTableTest, ExhaustedMemoryNamesSizeUseLimitAndSetting) {
  const Handle some = CreateMemory(10 << 20);
  absl::StatusOr<Handle> too_much = objects_.Create(ObjectKind::kMemory, 100 << 20, segment_.me());
  EXPECT_EQ(too_much.status().code(), absl::StatusCode::kResourceExhausted);
  for (const char* part : {"100 MiB", "10 MiB", "64 MiB", "set by Options::shared_memory_limit"}) {
    EXPECT_THAT(std::string(too_much.status().message()), HasSubstr(part));
  }
  EXPECT_FALSE(objects_.Create(ObjectKind::kMemory, ~uint64_t{0}, segment_.me()).ok());
  EXPECT_EQ(segment_->Usage().objects, 1u);
  EXPECT_TRUE(Exists(some));
}

TEST_F(ObjectTableTest, ExhaustedCellsNameTheLimit) {
  std::vector<Handle> handles;
  for (int i = 0; i < 4096; ++i) handles.push_back(*objects_.Create(ObjectKind::kMutex, 0, segment_.me()));
  EXPECT_THAT(std::string(objects_.Create(ObjectKind::kMutex, 0, segment_.me()).status().message()), HasSubstr("4096"));
  for (Handle handle : handles) Drop(handle);
  EXPECT_TRUE(objects_.Create(ObjectKind::kMutex, 0, segment_.me()).ok());
}

TEST_F(ObjectTableTest, HostWithoutIdentityCreatesNothing) {
  EXPECT_EQ(objects_.Create(ObjectKind::kMemory, 64, HostId()).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ObjectTableTest, BlocksNeverOverlap) {
  std::mt19937 random(7);
  std::vector<std::pair<Handle, std::byte>> live;
  for (int step = 0; step < 20'000; ++step) {
    if (live.size() < 200 && random() % 2 == 0) {
      const uint64_t size = 1 + random() % (random() % 8 == 0 ? 500'000 : 3'000);
      absl::StatusOr<Handle> handle = objects_.Create(ObjectKind::kMemory, size, segment_.me());
      if (!handle.ok()) continue;
      const auto mark = static_cast<std::byte>(random());
      memset(objects_.Block(*handle)->data(), static_cast<int>(mark), size);
      live.emplace_back(*handle, mark);
    } else if (!live.empty()) {
      std::swap(live[random() % live.size()], live.back());
      const auto [handle, mark] = live.back();
      const std::span<std::byte> block = BlockOf(handle);
      ASSERT_EQ(block.front(), mark);
      ASSERT_EQ(block.back(), mark);
      ASSERT_EQ(block[block.size() / 2], mark);
      Drop(handle);
      live.pop_back();
    }
  }
  for (const auto& [handle, mark] : live) Drop(handle);
  ExpectNothingLeft();
  ExpectAllMemoryWorks(1 << 20);
}

TEST_F(ObjectTableTest, ABlockOfAllThereIsFitsAgainAndAgain) {
  for (int i = 0; i < 10; ++i) {
    const Handle small = CreateMemory(64);
    const Handle large = CreateMemory((64 << 20) - 4096);
    Drop(small);
    Drop(large);
  }
  ExpectNothingLeft();
}

TEST_F(ObjectTableTest, FreedMemoryComesBackWarm) {
  const Handle first = CreateMemory(1 << 20);
  const std::byte* address = objects_.Block(first)->data();
  Drop(first);
  EXPECT_EQ(objects_.Block(CreateMemory(1 << 20))->data(), address);
}

TEST_F(ObjectTableTest, SmallSessionStaysSmall) {
  for (int i = 0; i < 100; ++i) CreateMemory(1000);
  EXPECT_LE(segment_->Usage().committed_bytes, 1u << 20);
}

TEST_F(ObjectTableTest, ALotOfFreeMemoryGoesBackToTheSystem) {
  std::vector<Handle> handles;
  for (int i = 0; i < 15'000 / 4; ++i) handles.push_back(CreateMemory(16 << 10));
  EXPECT_GE(segment_->Usage().committed_bytes, 58u << 20);
  for (Handle handle : handles) Drop(handle);
  // A quarter of the limit is kept, and what was too little to be worth a system call.
  EXPECT_LE(segment_->Usage().committed_bytes, 20u << 20);
  ExpectAllMemoryWorks(1 << 20);
}

TEST_F(ObjectTableTest, ForkedHostHoldsWhatItsParentHeld) {
  const Handle handle = CreateMemory(64);
  const HostId child = segment_.NewHost();
  objects_.DuplicateHolds(segment_.me(), child);
  Drop(handle);
  EXPECT_TRUE(Exists(handle));
  segment_.Bury(child, Killed(SIGKILL));
  EXPECT_FALSE(Exists(handle));
}

// "Pools" that make a chain: the state of each names the next object, which it keeps alive by a transit.  As with every
// kind, what is named is taken out before it is let go: whoever does that may die, and another comes.
void RegisterLink() {
  RegisterKind(ObjectKind::kPool,
               {.destroy = [](Segment& segment, HostId me, Handle handle) {
                  uint64_t& state = **segment.objects().StateAs<uint64_t>(handle);
                  const Handle next = Handle::FromValue(std::exchange(state, uint64_t{0}));
                  if (next) segment.objects().EndTransit(next, me);
                },
                .visit_transits = [](Segment& segment, HostId, Handle handle, const std::function<void(Handle)>& visit) {
                  const Handle next = Handle::FromValue(**segment.objects().StateAs<uint64_t>(handle));
                  if (next) visit(next);
                }});
}

TEST_F(ObjectTableTest, DestroyMayDropALongChainOfObjects) {
  RegisterLink();
  Handle head;
  for (int i = 0; i < 4000; ++i) {
    const Handle handle = *objects_.Create(ObjectKind::kPool, 64, segment_.me());
    if (head) {
      ASSERT_TRUE(objects_.AddTransit(head).ok());
      **objects_.StateAs<uint64_t>(handle) = head.value();
      Drop(head);
    }
    head = handle;
  }
  Drop(head);
  ExpectNothingLeft();
}

// ---- Recount of transits ----

// A "queue" whose state is one carried handle.
void RegisterCarrier() {
  RegisterKind(ObjectKind::kQueue,
               {.visit_transits = [](Segment& segment, HostId, Handle handle, const std::function<void(Handle)>& visit) {
                 const Handle carried = Handle::FromValue(**segment.objects().StateAs<uint64_t>(handle));
                 if (carried) visit(carried);
               }});
}

TEST_F(ObjectTableTest, RecountLowersTransitsThatNobodyCarries) {
  RegisterCarrier();
  const Handle carrier = *objects_.Create(ObjectKind::kQueue, 0, segment_.me());
  const Handle carried = CreateMemory(64);
  const Handle lost = CreateMemory(64);
  **objects_.StateAs<uint64_t>(carrier) = carried.value();
  for (const Handle handle : {carried, carried, lost}) ASSERT_TRUE(objects_.AddTransit(handle).ok());
  Drop(carried);
  Drop(lost);
  ASSERT_TRUE(objects_.RecountTransits(segment_.me()).ok());
  EXPECT_FALSE(Exists(lost));
  EXPECT_TRUE(Exists(carried));
  objects_.EndTransit(carried, segment_.me());
  EXPECT_FALSE(Exists(carried));
}

TEST_F(ObjectTableTest, RecountRefusesKindsItDoesNotKnow) {
  *objects_.Create(ObjectKind::kBarrier, 0, segment_.me());
  const absl::Status status = objects_.RecountTransits(segment_.me());
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("barrier"));
}

// ---- Deaths ----

TEST_F(ObjectTableTest, DeathGivesBackWhatTheDeadHeldAndNothingElse) {
  const Handle shared = CreateMemory(10'000);
  EXPECT_EQ(segment_.RunHost([&](HostId self) {
    CreateMemory(100'000, self);
    CreateMemory(100, self);
    kill(getpid(), SIGKILL);
  }),
            Killed(SIGKILL));
  EXPECT_TRUE(Exists(shared));
  Drop(shared);
  ExpectNothingLeft();
}

const char* const kCrashPoints[] = {
    "object-claim-locked",
    "object-claimed-without-block",
    "object-block-taken-before-noted",
    "object-block-noted",
    "object-claimed-before-held",
    "object-held-before-live",
    "object-hold-before-counted",
    "object-dropped-before-freed",
    "object-dying-before-destroyed",
    "object-block-freed-before-noted",
    "object-free-before-cell-returned",
    "object-duplicated-hold",
    "allocator-span-half-made",
    "allocator-small-taken",
    "allocator-small-freed",
    "allocator-committed-before-noted",
    "allocator-before-discard",
};

class ObjectTableCrashTest : public ObjectTableTest, public ::testing::WithParamInterface<const char*> {
 protected:
  // Passes every point above, several times.
  void UseEverything(HostId self) {
    objects_.Drop(CreateMemory(24 << 20, self), self, self);  // enough for some to be given back
    std::mt19937 random(3);
    std::vector<Handle> handles;
    for (int i = 0; i < 400; ++i) {
      const uint64_t size = 1 + random() % (i % 3 == 0 ? 200'000 : 2'500);
      handles.push_back(CreateMemory(size, self));
      ASSERT_TRUE(objects_.Hold(handles.back(), self).ok());
      if (i % 4 == 3) {
        std::swap(handles[random() % handles.size()], handles.back());
        objects_.Drop(handles.back(), self, self);
        handles.pop_back();
      }
    }
    objects_.DuplicateHolds(self, segment_.NewHost("grandchild"));
    for (Handle handle : handles) objects_.Drop(handle, self, self);
  }
  void BuryGrandchildren(HostId parent) {
    for (const HostInfo& info : segment_.hosts().List()) {
      if (info.name == "grandchild") {
        segment_.Bury(info.id, Killed(SIGKILL));
        segment_.hosts().Unwatch(info.id, parent);
      }
    }
  }
};

TEST_P(ObjectTableCrashTest, ADeathThereLeavesNothingBehind) {
  if (!testing::kCrashPointsBuilt) GTEST_SKIP() << "built without crash points";
  const Handle survivor = CreateMemory(5000);
  memset(objects_.Block(survivor)->data(), 0x5a, 5000);
  for (const int nth : {1, 2, 7}) {
    HostId id;
    auto child = segment_.StartHost(
        [&](HostId self) {
          KillAtCrashPoint(GetParam(), nth);
          UseEverything(self);
        },
        &id);
    const testing::ChildEnd end = child->Reap();
    if (nth == 1) {
      EXPECT_EQ(end, Killed(SIGKILL)) << "the point was not reached";
    }
    segment_.Bury(id, end);
    BuryGrandchildren(segment_.me());
    EXPECT_EQ(segment_->Usage().objects, 1u);
    EXPECT_EQ(segment_->Usage().used_bytes, 8192u);
  }
  for (std::byte byte : BlockOf(survivor)) ASSERT_EQ(byte, std::byte{0x5a});
  Drop(survivor);
  ExpectNothingLeft();
  ExpectAllMemoryWorks(1 << 20);
  UseEverything(segment_.me());
}

TEST_P(ObjectTableCrashTest, AWaiterGoesOnBeforeAnyRecovery) {
  if (!testing::kCrashPointsBuilt) GTEST_SKIP() << "built without crash points";
  HostId id;
  auto child = segment_.StartHost(
      [&](HostId self) {
        KillAtCrashPoint(GetParam());
        UseEverything(self);
      },
      &id);
  const testing::ChildEnd end = child->Reap();
  // The lock may be the dead host's: its life ended, which the process table says.
  UseEverything(segment_.me());
  segment_.Bury(id, end);
  BuryGrandchildren(id);
  BuryGrandchildren(segment_.me());
  ExpectNothingLeft();
}

INSTANTIATE_TEST_SUITE_P(Points, ObjectTableCrashTest, ::testing::ValuesIn(kCrashPoints), [](const auto& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST_F(ObjectTableTest, AChainWhoseDestroyerDiedIsDestroyedByTheNext) {
  if (!testing::kCrashPointsBuilt) GTEST_SKIP() << "built without crash points";
  RegisterLink();
  for (const int nth : {1, 2, 7}) {
    // The last of the chain is carried by somebody else too.
    const Handle shared = CreateMemory(64);
    const Handle other = *objects_.Create(ObjectKind::kPool, 0, segment_.me());
    **objects_.StateAs<uint64_t>(other) = shared.value();
    ASSERT_TRUE(objects_.AddTransit(shared).ok());
    EXPECT_EQ(segment_.RunHost([&](HostId self) {
      Handle head = shared;
      for (int i = 0; i < 8; ++i) {
        const Handle handle = *objects_.Create(ObjectKind::kPool, 64, self);
        ASSERT_TRUE(objects_.AddTransit(head).ok());
        **objects_.StateAs<uint64_t>(handle) = head.value();
        objects_.Drop(head, self, self);
        head = handle;
      }
      KillAtCrashPoint("object-destroyed-before-freed", nth);
      objects_.Drop(head, self, self);
    }),
              Killed(SIGKILL));
    EXPECT_EQ(segment_->Usage().objects, 2u);
    Drop(shared);
    EXPECT_TRUE(Exists(shared)) << "another carries it";
    Drop(other);
    ExpectNothingLeft();
  }
}

TEST_F(ObjectTableTest, ADeadRecovererIsReplaced) {
  if (!testing::kCrashPointsBuilt) GTEST_SKIP() << "built without crash points";
  HostId dead;
  auto child = segment_.StartHost(
      [&](HostId self) {
        CreateMemory(1 << 20, self);
        KillAtCrashPoint("object-block-freed-before-noted");
        objects_.Drop(CreateMemory(1 << 20, self), self, self);
      },
      &dead);
  segment_.hosts().SetExit(dead, {ExitStatus::Kind::kSignaled, child->Reap().value}, true);
  for (const char* point : {"object-block-freed-before-noted", "recovery-before-holds-cleared"}) {
    EXPECT_EQ(segment_.RunHost([&](HostId self) {
      KillAtCrashPoint(point);
      if (segment_.hosts().BeginRecovery(dead, self)) objects_.Recover(dead, self);
    }),
              Killed(SIGKILL));
  }
  ASSERT_TRUE(segment_.hosts().BeginRecovery(dead, segment_.me()));
  objects_.Recover(dead, segment_.me());
  segment_.hosts().FinishRecovery(dead);
  ExpectNothingLeft();
}

TEST_F(ObjectTableTest, RandomKillsLoseNothing) {
  constexpr int kKills = 60;
  std::mt19937 random(20);
  const Handle survivor = CreateMemory(5000);
  memset(objects_.Block(survivor)->data(), 0x5a, 5000);
  // Two at a time, so that locks are contended, and repairs happen under load.
  for (int kill_number = 0; kill_number < kKills; ++kill_number) {
    HostId ids[2];
    std::unique_ptr<Child> children[2];
    for (int i = 0; i < 2; ++i) {
      const unsigned seed = random();
      children[i] = segment_.StartHost(
          [&, seed](HostId self) {
            std::mt19937 mine(seed);
            std::vector<Handle> handles;
            for (;;) {
              if (handles.size() < 50 && mine() % 2 == 0) {
                absl::StatusOr<Handle> handle =
                    objects_.Create(ObjectKind::kMemory, 1 + mine() % (mine() % 4 == 0 ? 300'000 : 3'000), self);
                if (handle.ok()) handles.push_back(*handle);
              } else if (!handles.empty()) {
                objects_.Drop(handles.back(), self, self);
                handles.pop_back();
              }
            }
          },
          &ids[i]);
    }
    for (int i = 0; i < 2; ++i) {
      usleep(random() % 3000);  // the moment of death, nothing waits for it
      segment_.Bury(ids[i], children[i]->Kill());
    }
    ASSERT_EQ(segment_->Usage().objects, 1u) << "kill " << kill_number;
    ASSERT_EQ(segment_->Usage().used_bytes, 8192u) << "kill " << kill_number;
  }
  for (std::byte byte : BlockOf(survivor)) ASSERT_EQ(byte, std::byte{0x5a});
  Drop(survivor);
  ExpectAllMemoryWorks(1 << 20);
}

// ---- Threads ----

TEST_F(ObjectTableTest, ThreadsCreateHandOverAndDrop) {
  const HostId other = segment_.NewHost();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 2000; ++i) {
        const uint64_t size = 1 + (i * 37 + t * 1000) % 9000;
        const Handle handle = CreateMemory(size);
        memset(objects_.Block(handle)->data(), t, size);
        EXPECT_TRUE(objects_.AddTransit(handle).ok());
        Drop(handle);
        EXPECT_TRUE(objects_.Hold(handle, other).ok());
        objects_.EndTransit(handle, segment_.me());
        EXPECT_EQ(objects_.Block(handle)->back(), static_cast<std::byte>(t));
        objects_.Drop(handle, other, segment_.me());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ExpectNothingLeft();
}

TEST_F(ObjectTableTest, TwoDroppersFreeOnce) {
  const HostId other = segment_.NewHost();
  std::atomic<uint64_t> shared{0};
  constexpr int kRounds = 1000;
  std::atomic<int> dropped{0};
  std::thread thread([&] {
    for (int round = 1; round <= kRounds; ++round) {
      uint64_t value;
      while ((value = shared.exchange(0)) == 0) std::this_thread::yield();
      objects_.Drop(Handle::FromValue(value), other, other);
      dropped.store(round);
    }
  });
  for (int round = 1; round <= kRounds; ++round) {
    const Handle handle = CreateMemory(100);
    ASSERT_TRUE(objects_.Hold(handle, other).ok());
    shared.store(handle.value());
    Drop(handle);
    while (dropped.load() < round) std::this_thread::yield();
    ASSERT_FALSE(Exists(handle));
  }
  thread.join();
  ExpectNothingLeft();
}

// ---- Damage ----

TEST_F(ObjectTableTest, AnyBytesInTheTablesAreSurvived) {
  std::mt19937 random(11);
  for (int round = 0; round < 60; ++round) {
    const testing::ChildEnd end = testing::RunInChild([&] {
      TempSegment damaged({.limit = 4 << 20, .max_hosts = 64, .max_objects = 256});
      std::vector<Handle> handles;
      for (int i = 0; i < 50; ++i) {
        handles.push_back(*damaged.objects().Create(ObjectKind::kMemory, 100 + 700 * i, damaged.me()));
      }
      const SegmentMap& map = damaged->map();
      // Everything that the allocator and the cells believe in; the lock stays free.
      AllocatorState& allocator = map.header().allocator;
      auto* words = reinterpret_cast<uint32_t*>(&allocator);
      for (int i = 0; i < 40; ++i) words[1 + random() % (sizeof(allocator) / 4 - 1)] = random();
      for (int i = 0; i < 40; ++i) {
        reinterpret_cast<uint32_t*>(&map.page(random() % 1000))[random() % 6] = random();
        auto* cell = reinterpret_cast<uint64_t*>(&map.cell(random() % 60));
        cell[random() % 5] = (uint64_t{random()} << 32 | random()) >> random() % 64;
      }
      for (Handle handle : handles) {
        static_cast<void>(damaged.objects().Block(handle));
        damaged.objects().Drop(handle, damaged.me(), damaged.me());
      }
      for (int i = 0; i < 100; ++i) {
        absl::StatusOr<Handle> handle =
            damaged.objects().Create(ObjectKind::kMemory, 1 + random() % 100'000, damaged.me());
        if (!handle.ok()) continue;
        if (auto block = damaged.objects().Block(*handle); block.ok()) memset(block->data(), 1, block->size());
        damaged.objects().Drop(*handle, damaged.me(), damaged.me());
      }
      damaged.objects().Recover(HostId(5, 5), damaged.me());
      static_cast<void>(damaged.objects().RecountTransits(damaged.me()));
    });
    ASSERT_EQ(end, Exited(0)) << "round " << round;
    random.discard(200);
  }
}

}  // namespace
}  // namespace pyhost
