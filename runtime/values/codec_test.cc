// C++ values through a pickle and back, and every error that a value of another shape gives.  What Python makes of the
// pickles, and we of Python's, is in tests/python/values.

#include "pyhost/codec.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/container/inlined_vector.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "pyhost/value.h"

namespace pyhost {

struct Npc {
  std::string name;
  int hp = 0;
  std::optional<double> fear;
  std::vector<std::pair<float, float>> path;
  friend bool operator==(const Npc&, const Npc&) = default;
};
template <>
inline constexpr auto StructFields<Npc> = std::tuple{Field("name", &Npc::name), Field("hp", &Npc::hp),
                                                     Field("fear", &Npc::fear), Field("path", &Npc::path)};

struct Meters {
  double value = 0;
};
template <>
struct Codec<Meters> {
  static constexpr std::string_view kName = "a length";
  static bool Write(ValueWriter& writer, Meters meters) { return writer.Double(meters.value); }
  static bool Read(ValueReader reader, Meters* out) {
    return reader.ReadDouble(&out->value) && (out->value >= 0 || reader.Expected("a length that is not negative"));
  }
};

namespace {

using namespace std::string_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

enum class Mood : uint8_t { kCalm = 1, kAngry = 7 };

template <typename T>
std::string Pickle(const T& value) {
  absl::StatusOr<EncodedValue> encoded = EncodeValue(value);
  EXPECT_TRUE(encoded.ok()) << encoded.status();
  return encoded.ok() ? encoded->bytes : "";
}

// `value`, pickled and read as a T.
template <typename T, typename From>
T Through(const From& value) {
  absl::StatusOr<T> result = DecodeValue<T>(Pickle(value));
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? *std::move(result) : T{};
}
template <typename T>
T Through(const T& value) {
  return Through<T, T>(value);
}

// Why `value` cannot be read as a T.
template <typename T, typename From>
std::string Refusal(const From& value) {
  const absl::Status status = DecodeValue<T>(Pickle(value)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  return std::string(status.message());
}

TEST(CodecTest, AtomsComeBackAsTheyWere) {
  EXPECT_EQ(Through(true), true);
  EXPECT_EQ(Through(false), false);
  EXPECT_EQ(Through(std::monostate()), std::monostate());
  for (double value : {0.0, -0.0, 1.5, 1e308, -5e-324, std::numeric_limits<double>::infinity()}) {
    EXPECT_EQ(Through(value), value);
  }
  EXPECT_TRUE(std::isnan(Through(std::nan(""))));
  EXPECT_EQ(Through(2.5f), 2.5f);
  EXPECT_EQ(Through(std::complex<double>(1, -2)), std::complex<double>(1, -2));
  EXPECT_EQ(Through(std::string("Gr\u00fc\u00dfe \U0001f30d\0!", 15)),
            std::string("Gr\u00fc\u00dfe \U0001f30d\0!", 15));
  EXPECT_EQ(Through(std::string(70000, 'x')), std::string(70000, 'x'));
  EXPECT_EQ(Through<std::string>("literal"), "literal");
  EXPECT_EQ(Through<std::string>(std::string_view("view")), "view");
  EXPECT_EQ(Through(Mood::kAngry), Mood::kAngry);
}

enum class Letter : char { kA = 'a' };
enum class Wide : wchar_t { kA = L'a' };
enum class Switch : bool { kOff, kOn };

TEST(CodecTest, EnumsAreNumbersWhateverLiesUnderThem) {
  EXPECT_EQ(Through(Letter::kA), Letter::kA);
  EXPECT_EQ(Through<int>(Letter::kA), 'a');
  EXPECT_EQ(Through(Wide::kA), Wide::kA);
  EXPECT_EQ(Through(Switch::kOn), Switch::kOn);
  EXPECT_EQ(Through<int>(Switch::kOn), 1);
}

TEST(CodecTest, IntegersKeepTheirWholeRange) {
  for (int64_t value : {int64_t{0}, int64_t{-1}, int64_t{255}, int64_t{256}, int64_t{65535}, int64_t{65536},
                        int64_t{-129}, int64_t{INT32_MAX} + 1, int64_t{INT32_MIN} - 1, INT64_MAX, INT64_MIN}) {
    EXPECT_EQ(Through(value), value);
  }
  for (uint64_t value : {uint64_t{0}, uint64_t{1} << 63, UINT64_MAX}) EXPECT_EQ(Through(value), value);
  EXPECT_EQ(Through<int8_t>(-128), -128);
  EXPECT_EQ(Through<uint16_t>(65535), 65535);
}

TEST(CodecTest, AnIntegerOutOfTheTypesRangeIsAnError) {
  EXPECT_EQ(Refusal<int8_t>(128), "expected an integer from -128 to 127, got int 128");
  EXPECT_EQ(Refusal<uint8_t>(-1), "expected an integer from 0 to 255, got int -1");
  EXPECT_EQ(Refusal<uint64_t>(-1), "expected an integer from 0 to 18446744073709551615, got int -1");
  EXPECT_THAT(Refusal<int64_t>(UINT64_MAX), HasSubstr("got int of 64 bits"));
  const Integer huge = *Integer::FromHex("0x1" + std::string(1000, '0'));
  EXPECT_THAT(Refusal<uint64_t>(huge), HasSubstr("expected an integer from 0 to"));
  EXPECT_THAT(Refusal<double>(huge), HasSubstr("expected a float"));
  EXPECT_EQ(Refusal<Mood>(256), "expected an integer from 0 to 255, got int 256");
}

TEST(CodecTest, BitsOfLargeIntegersAreCountedAsPythonDoes) {
  const auto bits = [](const std::string& hex) { return Refusal<int64_t>(*Integer::FromHex(hex)); };
  const std::string zeros(25'000, '0');
  EXPECT_THAT(bits("0x1" + zeros), HasSubstr("got int of 100001 bits"));
  EXPECT_THAT(bits("-0x1" + zeros), HasSubstr("got int of 100001 bits"));
  EXPECT_THAT(bits("-0x1" + zeros + "1"), HasSubstr("got int of 100005 bits"));
  EXPECT_THAT(bits("-0xff" + zeros), HasSubstr("got int of 100008 bits"));
  EXPECT_THAT(bits("-0x8000000000000001"), HasSubstr("got int of 64 bits"));
}

TEST(CodecTest, AFloatIsReadOutOfAnIntegerThatIsOneExactly) {
  EXPECT_EQ(Through<double>(3), 3.0);
  EXPECT_EQ(Through<float>(-7), -7.0f);
  EXPECT_THAT(Refusal<double>(INT64_MAX), HasSubstr("an integer that is one exactly"));
  EXPECT_THAT(Refusal<float>(1e300), HasSubstr("single precision"));
  EXPECT_EQ(Through<float>(std::numeric_limits<double>::infinity()), std::numeric_limits<float>::infinity());
  EXPECT_EQ(Refusal<int>(3.0), "expected an integer, got float 3");
  EXPECT_EQ(Refusal<int>(true), "expected an integer, got bool True");
  EXPECT_EQ(Refusal<bool>(1), "expected a bool, got int 1");
}

TEST(CodecTest, ContainersComeBackAsTheyWere) {
  EXPECT_THAT(Through(std::vector<int>{1, 2, 3}), ElementsAre(1, 2, 3));
  EXPECT_TRUE(Through(std::vector<int>()).empty());
  EXPECT_THAT(Through(std::vector<bool>{true, false}), ElementsAre(true, false));
  EXPECT_THAT(Through(std::deque<std::string>{"a", "b"}), ElementsAre("a", "b"));
  EXPECT_THAT(Through(std::list<double>{1.5}), ElementsAre(1.5));
  EXPECT_THAT(Through(absl::InlinedVector<int, 2>{7, 8, 9}), ElementsAre(7, 8, 9));
  EXPECT_EQ(Through(std::array<float, 3>{1, 2, 3}), (std::array<float, 3>{1, 2, 3}));
  EXPECT_EQ(Through(std::tuple(1, std::string("x"), 2.5)), std::tuple(1, std::string("x"), 2.5));
  EXPECT_EQ(Through(std::tuple<>()), std::tuple<>());
  EXPECT_EQ(Through(std::pair(1, true)), std::pair(1, true));
  const std::vector<std::byte> bytes(300, std::byte{0xff});
  EXPECT_EQ(Through(bytes), bytes);
  EXPECT_EQ(Through(std::vector<std::vector<int>>(2000, {1, 2})), std::vector<std::vector<int>>(2000, {1, 2}));
}

TEST(CodecTest, MapsAndSetsOfAllKinds) {
  EXPECT_THAT(Through(std::map<std::string, int>{{"a", 1}, {"b", 2}}), ElementsAre(Pair("a", 1), Pair("b", 2)));
  EXPECT_EQ(Through(std::unordered_map<int, bool>{{1, true}}).at(1), true);
  EXPECT_EQ((Through(absl::flat_hash_map<std::string, double>{{"x", 0.5}}).at("x")), 0.5);
  EXPECT_THAT(Through(absl::btree_map<int, std::vector<int>>{{3, {4}}}), ElementsAre(Pair(3, ElementsAre(4))));
  EXPECT_THAT(Through(std::set<int>{3, 1}), ElementsAre(1, 3));
  EXPECT_TRUE(Through(absl::flat_hash_set<std::string>{"x"}).contains("x"));
  EXPECT_TRUE(Through(std::map<int, int>()).empty());
}

TEST(CodecTest, AListFitsWhereATupleIsExpectedAndTheOtherWayRound) {
  EXPECT_EQ((Through<std::array<int, 2>>(std::vector{1, 2})), (std::array{1, 2}));
  EXPECT_THAT((Through<std::vector<int>>(std::tuple(1, 2))), ElementsAre(1, 2));
  EXPECT_EQ((Refusal<std::array<int, 3>>(std::vector{1, 2})), "expected a tuple of 3 items, got list of 2 items");
  EXPECT_EQ((Refusal<std::pair<int, int>>(std::tuple(1))), "expected a tuple of 2 items, got tuple of 1 item");
}

TEST(CodecTest, OneOfSeveralTypes) {
  EXPECT_EQ(Through(std::optional<int>()), std::nullopt);
  EXPECT_EQ(Through(std::optional<int>(3)), 3);
  EXPECT_EQ(Refusal<std::optional<int>>("x"), "expected an integer, got str \"x\"");
  using Either = std::variant<double, int, std::string, std::vector<int>>;
  EXPECT_EQ((Through(Either(3))), Either(3));  // An int stays one, though a double stands first.
  EXPECT_EQ((Through(Either(3.0))), Either(3.0));
  EXPECT_EQ((Through(Either("x"))), Either("x"));
  EXPECT_EQ((Through(Either(std::vector{1}))), Either(std::vector{1}));
  using Inexact = std::variant<std::string, double>;
  EXPECT_EQ((Through<Inexact>(3)), Inexact(3.0));
  EXPECT_EQ((Refusal<Either>(std::monostate())), "expected a float or an integer or a str or a list, got None");
}

TEST(CodecTest, AStructIsADict) {
  const Npc npc{.name = "Ada", .hp = 70, .fear = {}, .path = {{1, 2}, {3, 4}}};
  EXPECT_EQ(Through(npc), npc);
  EXPECT_EQ(Through(std::vector{npc, npc}), (std::vector{npc, npc}));
  const Value as_value = Through<Value>(npc);
  EXPECT_EQ(*as_value.Find("hp")->Get<int>(), 70);
  EXPECT_TRUE(as_value.Find("fear")->is_none());
}

TEST(CodecTest, AStructSaysWhichMemberIsMissingWrongOrUnknown) {
  std::map<std::string, Value> dict = {{"name", "Bob"}, {"hp", 3}, {"path", Value::List({})}};
  EXPECT_EQ(Through<Npc>(dict).fear, std::nullopt);  // It may be missing.
  dict["hp"] = "full";
  EXPECT_EQ(Refusal<Npc>(dict), "[\"hp\"]: expected an integer, got str \"full\"");
  dict["hp"] = 3;
  dict["hpp"] = 3;
  EXPECT_EQ(Refusal<Npc>(dict), "[\"hpp\"]: the struct has no such member");
  dict.erase("hpp");
  dict.erase("name");
  EXPECT_EQ(Refusal<Npc>(dict), "expected a dict with the key \"name\", got dict of 2 items");
  EXPECT_EQ(Refusal<Npc>(3), "expected a dict, got int 3");
  EXPECT_EQ((Refusal<Npc>(std::map<int, int>{{1, 2}})), "[1]: expected a str, got int 1");
}

TEST(CodecTest, ALongWayToTheCulpritIsShownWithoutItsMiddle) {
  Value value = "x";
  for (int i = 0; i < 900; ++i) value = Value::List({i, std::move(value)});
  DecodeContext context;
  context.max_depth = 500;
  const absl::Status status = DecodeValue<Value>(EncodeValue(value)->bytes, context).status();
  EXPECT_THAT(std::string(status.message()), ::testing::StartsWith("[1][1][1]"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("[1]...[1]"));
  EXPECT_LT(status.message().size(), 400u);
  const std::map<std::string, std::string> bad = {{std::string(1000, 'k'), "\xff"}};
  EXPECT_LT(EncodeValue(bad).status().message().size(), 400u);
}

TEST(CodecTest, AKeyThatIsNoUtf8IsShownEscaped) {
  const auto read = DecodeValue<std::map<std::string, int>>("\x80\x05}\x8c\x03\xed\xa0\x80K\x01s.");  // {'\ud800': 1}
  EXPECT_THAT(std::string(read.status().message()), HasSubstr("[\"\\xed\\xa0\\x80\"]: expected a str that UTF-8 can hold"));
  const std::map<std::string, std::string> bad = {{"\xff", "\xff"}};
  EXPECT_FALSE(EncodeValue(bad).ok());
}

TEST(CodecTest, ErrorsSayWhere) {
  const std::vector<Value> list = {1, 2, 3, Value::Dict({{"hp", "x"}})};
  EXPECT_EQ((Refusal<std::vector<std::map<std::string, int>>>(std::vector<Value>(list.begin() + 3, list.end()))),
            "[0][\"hp\"]: expected an integer, got str \"x\"");
  EXPECT_EQ(
      (Refusal<std::vector<Npc>>(std::vector<Value>{Value::Dict({{"path", Value::List({Value::Tuple({1, "y"})})}})})),
      "[0][\"path\"][0][1]: expected a float, got str \"y\"");
  EXPECT_EQ((Refusal<std::set<int>>(std::set<std::string>{"a"})), "[0]: expected an integer, got str \"a\"");
  EXPECT_THAT(Refusal<int>(std::string(5000, 'x')), HasSubstr("xxx...\" (5000 bytes)"));
  EXPECT_LT(Refusal<int>(std::string(5000, 'x')).size(), 200u);
}

TEST(CodecTest, TextThatIsNotUtf8IsRefusedWhereItIsWritten) {
  for (const char* bad :
       {"\xff", "a\x80", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "\xf8\x88\x80\x80\x80"}) {
    EXPECT_EQ(EncodeValue(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
  const absl::Status status =
      EncodeArguments(1, std::map<std::string, std::vector<std::string>>{{"k", {"good", "\xff"}}}).status();
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("arguments[1][\"k\"][1]: a text that is not UTF-8, at byte 0 of 1"));
}

TEST(CodecTest, ArgumentsAreATuple) {
  const EncodedValue encoded = *EncodeArguments(7, "forest", std::vector<float>{1, 2});
  const auto back = DecodeValue<std::tuple<int, std::string, std::vector<float>>>(encoded.bytes);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(*back, std::tuple(7, std::string("forest"), std::vector<float>{1, 2}));
  EXPECT_TRUE(DecodeValue<std::tuple<>>(EncodeArguments()->bytes).ok());
}

TEST(CodecTest, ACodecOfOnesOwn) {
  EXPECT_EQ(Through(Meters{2.5}).value, 2.5);
  EXPECT_EQ(Refusal<std::vector<Meters>>(std::vector{1.0, -1.0}),
            "[1]: expected a length that is not negative, got float -1");
}

TEST(CodecTest, NestingBeyondTheLimitIsAnErrorBothWays) {
  Value nest = Value::List({});
  for (int i = 1; i < 999; ++i) nest = Value::List({std::move(nest)});
  EXPECT_EQ(Through(nest), nest);
  const std::string deep = std::string("\x80\x05") + std::string(100000, ']') + std::string(99999, 'a') + ".";
  const absl::Status status = DecodeValue<Value>(deep).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("nested deeper than 1000 levels"));
  for (int i = 0; i < 10; ++i) nest = Value::List({std::move(nest)});
  EXPECT_THAT(std::string(EncodeValue(nest).status().message()), HasSubstr("nested deeper than 1000 levels"));
}

TEST(CodecTest, WhatUnfoldsToTooMuchIsAnError) {
  // x = []; 40 times: x = [x, x].  All lists lie above a mark, and only the last is kept.
  std::string bomb = "\x80\x05(]\x94";
  for (char i = 0; i < 40; ++i) bomb += std::string("](h") + i + "h" + i + "e\x94";
  bomb += "1h\x28.";
  DecodeContext context;
  context.max_unfolded_bytes = 1 << 20;
  const absl::Status status = DecodeValue<Value>(bomb, context).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("unfolds to too much"));
}

TEST(CodecTest, WhatContainsItselfIsAnError) {
  const absl::Status status = DecodeValue<Value>("\x80\x05]\x94h\0a."s).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("contains itself"));
}

TEST(CodecTest, AnyCutOffPickleIsAnError) {
  const std::string whole = Pickle(Npc{.name = "Ada", .hp = 70000, .fear = 0.5, .path = {{1, 2}}});
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_EQ(DecodeValue<Value>(std::string_view(whole).substr(0, size)).status().code(), absl::StatusCode::kDataLoss)
        << size;
  }
}

TEST(CodecTest, FalseLengthsAndReferencesAreErrors) {
  const std::pair<std::string, const char*> cases[] = {
      {"\x80\x05\x8e\xff\xff\xff\xff\xff\xff\xff\x7f."s, "a text of 9223372036854775807 bytes where 1 are left"},
      {"\x80\x05\x95\xff\xff\xff\xff\xff\xff\xff\x7fN."s, "a frame of"},
      {"\x80\x05X\xff\xff\xff\xff."s, "a text of 4294967295 bytes"},
      {"\x80\x05h\x05."s, "no memo 5"},
      {"\x80\x05Nr\xff\xff\xff\xff."s, "memo number 4294967295"},
      {"\x80\x05\x85."s, "a value is missing"},
      {"\x80\x05."s, "another number of values than one"},
      {"\x80\x05NN."s, "another number of values than one"},
      {"\x80\x05N.N"s, "something follows its end"},
      {"\x80\x05Na."s, "a container is missing"},
      {"\x80\x05NNa."s, "items for something that has none"},
      {"\x80\x05}(Nu."s, "a key without a value"},
      {"\x80\x05t."s, "a mark is missing"},
      {"\x80\x06N."s, "protocol 6 is newer"},
      {"\x80\x05\x97."s, "more than the 0 buffers"},
      {"\x80\x05NQ."s, "persistent id"},
      {"\x80\x05\x82\x01."s, "extension registry"},
      {"\x80\x05I3\n."s, "unknown opcode"},
      {"\x80\x05(N0."s, "another number of values than one"},
  };
  for (const auto& [pickle, message] : cases) {
    const absl::Status status = DecodeValue<Value>(pickle).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << message;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
}

}  // namespace
}  // namespace pyhost
