// Opcodes of the pickle format, protocol 5 (see the standard library's pickletools): those that plain builtins need.

#ifndef PYHOST_MODULES_NATIVE_PICKLE_OPCODES_H_
#define PYHOST_MODULES_NATIVE_PICKLE_OPCODES_H_

namespace pyhost::native {

enum Opcode : unsigned char {
  kMark = '(',
  kStop = '.',
  kNone = 'N',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kBinInt = 'J',
  kBinFloat = 'G',
  kLong1 = 0x8a,
  kTrue = 0x88,
  kFalse = 0x89,
  kShortUnicode = 0x8c,
  kUnicode = 'X',
  kShortBytes = 'C',
  kBytes = 'B',
  kEmptyTuple = ')',
  kTuple = 't',
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kEmptyList = ']',
  kAppend = 'a',
  kAppends = 'e',
  kEmptyDict = '}',
  kSetItem = 's',
  kSetItems = 'u',
  kEmptySet = 0x8f,
  kAddItems = 0x90,
  kFrozenSet = 0x91,
  kMemoize = 0x94,
  kGet1 = 'h',
  kGet4 = 'j',
  kProto = 0x80,
  kFrame = 0x95,
  kStackGlobal = 0x93,
};

inline constexpr unsigned char kPickleProtocol = 5;

}  // namespace pyhost::native

#endif  // PYHOST_MODULES_NATIVE_PICKLE_OPCODES_H_
