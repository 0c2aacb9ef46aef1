from splitplace.edge_node.stage.processor import instructions, runtime_identity

X86 = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Something
cpu MHz\t\t: 2000.000
flags\t\t: fpu avx avx2

processor\t: 1
vendor_id\t: GenuineIntel
model name\t: Something
cpu MHz\t\t: 2417.113
flags\t\t: avx2 avx fpu
"""
PI = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU part\t: 0xd08

Serial\t\t: 10000000abcdef
"""


def test_only_what_tells_of_instructions_counts() -> None:
    assert instructions(X86) == "flags avx avx2 fpu; vendor_id GenuineIntel"
    assert instructions(PI) == ("CPU implementer 0x41; CPU part 0xd08; Features asimd cpuid crc32 evtstrm fp")


def test_cores_clocks_and_order_do_not_count() -> None:
    one_core = X86.split("\n\n", maxsplit=1)[0]
    assert instructions(one_core) == instructions(X86) != instructions(X86.replace("avx2", "avx512f"))


def test_the_identity_names_the_runtime() -> None:
    assert runtime_identity().startswith("onnxruntime ")
