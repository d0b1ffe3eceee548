# ruff: noqa: RUF001
"""Where requests may go. Every address here is judged as the system would read it, and none is connected to."""

import ipaddress
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.chassis.egress import allowed, urls
from services.chassis.egress.errors import AddressRefused, NotReached
from services.chassis.egress.guard import Guard
from tests.support.resolver import FakeResolver

NAMES = {
    "localhost": ["127.0.0.1", "::1"],
    "localhost.localdomain": ["127.0.0.1"],
    "loop.example": ["127.0.0.1"],
    "loop6.example": ["::1"],
    "metadata.google.internal": ["169.254.169.254"],
    "metadata": ["169.254.169.254"],
    "10.0.0.1.nip.example": ["10.0.0.1"],
    "kubernetes.default.svc": ["10.96.0.1"],
    "postgres": ["172.18.0.2"],
    "printer.local": ["192.168.1.9"],
    "mixed.example": ["93.184.215.14", "10.0.0.1"],
    "mixed6.example": ["2606:2800:21f:cb07:6820:80da:af6b:8b2c", "fd00::1"],
    "last.example": ["93.184.215.14", "93.184.215.15", "93.184.215.16", "127.0.0.1"],
    "zone.example": ["fe80::1%1"],
    "mapped.example": ["::ffff:10.0.0.1"],
    "nonsense.example": ["not an address"],
    "xn--e1afmkfd.example": ["10.1.1.1"],
    "public.example": ["93.184.215.14"],
    "public6.example": ["2606:2800:21f:cb07:6820:80da:af6b:8b2c"],
    "both.example": ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"],
    "behind-nat64.example": ["64:ff9b::5db8:d70e"],
    "under_score.example": ["93.184.215.14"],
    "xn--bcher-kva.example": ["93.184.215.14"],
}

REFUSED = [
    # Loopback.
    "https://127.0.0.1/",
    "https://127.0.0.1:8443/",
    "https://127.0.0.2/",
    "https://127.255.255.254/",
    "https://localhost/",
    "https://LOCALHOST/",
    "https://LocalHost:8443/",
    "https://localhost.localdomain/",
    "https://loop.example/",
    "https://loop6.example/",
    "https://[::1]/",
    "https://[0:0:0:0:0:0:0:1]/",
    "https://[0000:0000:0000:0000:0000:0000:0000:0001]:8443/",
    "https://[::0.0.0.1]/",
    # This host: Linux connects to loopback.
    "https://0.0.0.0/",
    "https://0.1.2.3/",
    "https://[::]/",
    "https://[::0]/",
    # IPv4 in fewer numbers, of which the last fills the rest.
    "https://127.1/",
    "https://127.0.1/",
    "https://0/",
    "https://1/",
    "https://10.1/",
    "https://192.168.257/",
    "https://172.16.1/",
    # One decimal number.
    "https://2130706433/",
    "https://2852039166/",
    "https://167772161/",
    "https://3232235521/",
    "https://02130706433/",
    # Octal.
    "https://0177.0.0.1/",
    "https://0177.0.0.01/",
    "https://00000177.0.0.1/",
    "https://017700000001/",
    "https://0300.0250.0.1/",
    "https://0251.0376.0251.0376/",
    # Hexadecimal, and mixed.
    "https://0x7f.0.0.1/",
    "https://0x7f.0x0.0x0.0x1/",
    "https://0X7F.0.0.1/",
    "https://0x7f000001/",
    "https://0x7f.1/",
    "https://127.0.0.0x1/",
    "https://0xa9fea9fe/",
    "https://0xa9.0xfe.0xa9.0xfe/",
    "https://0x7f.0177.1/",
    "https://0x/",
    "https://127.0x/",
    # Numbers that are none: nobody is asked for them.
    "https://256.256.256.256/",
    "https://127.0.0.1.1/",
    "https://4294967297/",
    "https://1.2.3.0x100/",
    "https://example.123/",
    "https://example.0x7f/",
    # Private.
    "https://10.0.0.1/",
    "https://10.255.255.255/",
    "https://172.16.0.1/",
    "https://172.31.255.254/",
    "https://192.168.0.1/",
    "https://192.168.255.254/",
    "https://kubernetes.default.svc/",
    "https://postgres/",
    "https://printer.local/",
    "https://10.0.0.1.nip.example/",
    # Link-local, and what clouds tell their machines.
    "https://169.254.0.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://169.254.170.2/",
    "https://metadata.google.internal/computeMetadata/v1/",
    "https://METADATA.google.internal/",
    "https://metadata/",
    "https://100.100.100.200/",
    "https://192.0.0.192/",
    "https://168.63.129.16/",
    "https://[fd00:ec2::254]/",
    "https://[fd20:ce::254]/",
    # Shared by carriers.
    "https://100.64.0.1/",
    "https://100.127.255.254/",
    # Protocol assignments, anycast to whoever is near, documentation, benchmarks.
    "https://192.0.0.1/",
    "https://192.0.0.170/",
    "https://192.0.2.1/",
    "https://192.31.196.1/",
    "https://192.52.193.1/",
    "https://192.88.99.1/",
    "https://192.175.48.1/",
    "https://198.18.0.1/",
    "https://198.19.255.254/",
    "https://198.51.100.1/",
    "https://203.0.113.1/",
    # Multicast, reserved, broadcast.
    "https://224.0.0.1/",
    "https://239.255.255.250/",
    "https://240.0.0.1/",
    "https://255.255.255.254/",
    "https://255.255.255.255/",
    # IPv6: private, link-local, site-local, multicast, discard, documentation, reserved.
    "https://[fc00::1]/",
    "https://[fd12:3456:789a::1]/",
    "https://[FD00::1]/",
    "https://[fe80::1]/",
    "https://[febf::1]/",
    "https://[fec0::1]/",
    "https://[feff::1]/",
    "https://[ff02::1]/",
    "https://[ff0e::1]/",
    "https://[100::1]/",
    "https://[2001:db8::1]/",
    "https://[3fff::1]/",
    "https://[3ffe::1]/",
    "https://[2001:2::1]/",
    "https://[2001:10::1]/",
    "https://[2001:20::1]/",
    "https://[2620:4f:8000::1]/",
    "https://[5f00::1]/",
    "https://[4000::1]/",
    "https://[e000::1]/",
    # IPv6 that holds an IPv4 address: mapped, compatible, translated, 6to4, Teredo, NAT64, ISATAP.
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[0:0:0:0:0:ffff:7f00:0001]/",
    "https://[::FFFF:169.254.169.254]/",
    "https://[::ffff:93.184.215.14]/",
    "https://[::127.0.0.1]/",
    "https://[::7f00:1]/",
    "https://[::93.184.215.14]/",
    "https://[::ffff:0:127.0.0.1]/",
    "https://[2002:7f00:1::1]/",
    "https://[2002:a9fe:a9fe::1]/",
    "https://[2002:5db8:d70e::1]/",
    "https://[2001:0:5db8:d70e:0:0:80ff:fffe]/",
    "https://[2001::1]/",
    "https://[64:ff9b::127.0.0.1]/",
    "https://[64:ff9b::10.0.0.1]/",
    "https://[64:ff9b::a9fe:a9fe]/",
    "https://[64:ff9b::e000:1]/",
    "https://[64:ff9b:1::127.0.0.1]/",
    "https://[64:ff9b:1::93.184.215.14]/",
    "https://[2606:2800:21f::5efe:10.0.0.1]/",
    "https://[2606:2800:21f:0:200:5efe:127.0.0.1]/",
    "https://mapped.example/",
    # Zones of this machine's own network.
    "https://[fe80::1%eth0]/",
    "https://[fe80::1%25eth0]/",
    "https://[2606:2800:21f::1%251]/",
    "https://zone.example/",
    # Names with several addresses, of which one is enough; and with what is none.
    "https://mixed.example/",
    "https://mixed6.example/",
    "https://last.example/",
    "https://nonsense.example/",
    # User names and passwords, that make another host look like the one that is asked.
    "https://public.example@127.0.0.1/",
    "https://public.example:443@127.0.0.1/",
    "https://127.0.0.1@public.example/",
    "https://user:hunter2@public.example/",
    "https://@public.example/",
    "https://public.example%40127.0.0.1/",
    "https://public.example%2F@127.0.0.1/",
    # Backslashes, spaces, control characters.
    "https://public.example\\@127.0.0.1/",
    "https://127.0.0.1\\.public.example/",
    "https:\\\\public.example/",
    "https://public.example/\\..\\x",
    " https://public.example/",
    "https://public.example/ ",
    "https://public.example /",
    "https:// public.example/",
    "https://public.example\t/",
    "https://public.example\r\nHost: localhost/",
    "https://public.example/\r\nX-Header: 1",
    "https://public.example\x00.localhost/",
    "https://127.0.0.1\x00.public.example/",
    "https://public.example/\x7f",
    # Percent signs in hosts.
    "https://127%2e0%2e0%2e1/",
    "https://%31%32%37.0.0.1/",
    "https://localhos%74/",
    "https://public.example%00/",
    "https://public.example%23.localhost/",
    # Full width digits, dots of other scripts, digits in circles, characters that are not seen.
    "https://１２７.0.0.1/",
    "https://127。0。0。1/",
    "https://127．0．0．1/",
    "https://127｡0｡0｡1/",
    "https://⑫7.0.0.1/",
    "https://①②⑦.⓪.⓪.①/",
    "https://ⓛocalhost/",
    "https://ｌｏｃａｌｈｏｓｔ/",
    "https://local\u200bhost/",
    "https://local\u00adhost/",
    "https://\u202e127.0.0.1/",
    "https://١٢٧.0.0.1/",
    "https://пример.example/",
    # Dots at the end or in a row.
    "https://127.0.0.1./",
    "https://localhost./",
    "https://public.example./",
    "https://public..example/",
    "https://.public.example/",
    "https://./",
    # No host, or several, or what looks like brackets.
    "https://",
    "https:///",
    "https:///127.0.0.1/",
    "https://:443/",
    "https://?127.0.0.1",
    "https://#127.0.0.1",
    "https:127.0.0.1",
    "https:/127.0.0.1/",
    "https://[]/",
    "https://[::1/",
    "https://::1/",
    "https://[127.0.0.1]/",
    "https://[::1]public.example/",
    "https://[::1].public.example/",
    "https://public.example[::1]/",
    "https://[[::1]]/",
    "https://[v1.::1]/",
    "https://public.example,localhost/",
    "https://public.example;localhost/",
    "https://public.example&localhost/",
    "https://public_example!/",
    "https://-public.example/",
    f"https://{'a' * 64}.example/",
    f"https://{'a.' * 127}aa/",
    f"https://public.example/{'a' * urls.MAX_LENGTH}",
    # Ports.
    "https://public.example:0/",
    "https://public.example:65536/",
    "https://public.example:99999/",
    "https://public.example:-1/",
    "https://public.example:+443/",
    "https://public.example:4_43/",
    "https://public.example:/",
    "https://public.example:443:443/",
    "https://public.example:https/",
    "https://public.example:４４３/",
    "https://public.example:443@localhost/",
    # Other schemes, and http without being allowed.
    "http://public.example/",
    "http://93.184.215.14/",
    "HTTP://public.example/",
    "http://localhost/",
    "ftp://public.example/",
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "ws://public.example/",
    "wss://public.example/",
    "unix:///var/run/docker.sock",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/info",
    "data:text/plain,x",
    "javascript:alert(1)",
    "jar:https://public.example!/",
    "https+x://public.example/",
    "https//public.example/",
    "//public.example/",
    "/etc/passwd",
    "public.example",
    "127.0.0.1:80",
    "",
]

PUBLIC = [
    ("https://public.example/", ["93.184.215.14"]),
    ("https://PUBLIC.Example:443/a%20path?q=1#part", ["93.184.215.14"]),
    ("HTTPS://public.example", ["93.184.215.14"]),
    ("https://public.example:8443/?next=http://127.0.0.1/", ["93.184.215.14"]),
    ("https://public.example/@127.0.0.1", ["93.184.215.14"]),
    ("https://public.example/a:b@c", ["93.184.215.14"]),
    ("https://public.example?user@127.0.0.1", ["93.184.215.14"]),
    ("https://public.example#@127.0.0.1", ["93.184.215.14"]),
    ("https://under_score.example/", ["93.184.215.14"]),
    ("https://bücher.example/ä", ["93.184.215.14"]),
    ("https://public6.example/", ["2606:2800:21f:cb07:6820:80da:af6b:8b2c"]),
    ("https://both.example/", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"]),
    ("https://behind-nat64.example/", ["64:ff9b::5db8:d70e"]),
    ("https://1.1.1.1/", ["1.1.1.1"]),
    ("https://8.8.8.8:853/", ["8.8.8.8"]),
    ("https://11.0.0.1/", ["11.0.0.1"]),
    ("https://100.63.255.255/", ["100.63.255.255"]),
    ("https://100.128.0.1/", ["100.128.0.1"]),
    ("https://126.255.255.255/", ["126.255.255.255"]),
    ("https://128.0.0.1/", ["128.0.0.1"]),
    ("https://168.63.129.17/", ["168.63.129.17"]),
    ("https://172.15.255.255/", ["172.15.255.255"]),
    ("https://172.32.0.1/", ["172.32.0.1"]),
    ("https://192.0.1.1/", ["192.0.1.1"]),
    ("https://192.167.255.255/", ["192.167.255.255"]),
    ("https://192.169.0.1/", ["192.169.0.1"]),
    ("https://198.17.255.255/", ["198.17.255.255"]),
    ("https://198.20.0.1/", ["198.20.0.1"]),
    ("https://223.255.255.255/", ["223.255.255.255"]),
    ("https://[2606:4700:4700::1111]/", ["2606:4700:4700::1111"]),
    ("https://[2001:4860:4860::8888]:853/", ["2001:4860:4860::8888"]),
    ("https://[2A00:1450:4001:81B::200E]/", ["2a00:1450:4001:81b::200e"]),
    ("https://[64:ff9b::8.8.8.8]/", ["64:ff9b::808:808"]),
    ("https://[2003::1]/", ["2003::1"]),
]


async def judged(url: str, allow: str = "") -> list[str]:
    guard = Guard(allowed.parse(allow), FakeResolver(NAMES))
    return [str(address) for address in await guard.addresses(urls.read(url))]


def test_the_list_is_long_and_names_nothing_twice() -> None:
    assert len(REFUSED) == len(set(REFUSED)) >= 130


@pytest.mark.parametrize("url", REFUSED)
async def test_what_must_not_be_reached_is_refused(url: str) -> None:
    with pytest.raises(AddressRefused, match=r"^is refused: \w") as refused:
        await judged(url)
    # Whoever reads the message learns no address, and no password.
    assert not [word for word in ("127.", "10.", "169.254", "hunter2", "::1") if word in str(refused.value)]


@pytest.mark.parametrize(("url", "addresses"), PUBLIC)
async def test_public_addresses_are_let_through(url: str, addresses: list[str]) -> None:
    assert await judged(url) == addresses


async def test_a_name_that_nobody_knows_is_not_refused_but_not_reached() -> None:
    with pytest.raises(NotReached, match="cannot be resolved"):
        await judged("https://unknown.example/")


async def test_the_name_is_looked_up_once_and_an_address_never() -> None:
    resolver = FakeResolver(NAMES)
    await Guard(resolver=resolver).addresses(urls.read("https://PUBLIC.example:8443/"))
    await Guard(resolver=resolver).addresses(urls.read("https://1.1.1.1/"))
    assert resolver.asked == ["public.example"]


V4 = st.one_of(
    st.ip_addresses(v=4),
    st.sampled_from(
        ["127.0.0.0/8", "10.0.0.0/8", "169.254.0.0/16", "100.64.0.0/10", "0.0.0.0/8", "192.0.0.0/23"]
    ).flatmap(lambda network: st.ip_addresses(network=network)),
)


def part(number: int, base: str) -> str:
    return {"decimal": f"{number}", "octal": f"0{number:o}", "hex": f"0x{number:x}", "HEX": f"0X{number:X}"}[base]


@st.composite
def spelled_v4(draw: st.DrawFn) -> str:
    """An IPv4 address in one of the ways in which resolvers read them."""
    packed = draw(V4).packed
    kept = draw(st.integers(0, 3))
    numbers = [*packed[:kept], int.from_bytes(packed[kept:], "big")]
    bases = st.sampled_from(["decimal", "octal", "hex", "HEX"])
    text = draw(st.sampled_from([".", ".", ".", "。", "．"])).join(part(number, draw(bases)) for number in numbers)
    wide = str.maketrans("0123456789", "０１２３４５６７８９")
    return draw(st.sampled_from([text, text, text, f"{text}.", text.translate(wide), text.replace(".", "%2e")]))


@st.composite
def spelled_v6(draw: st.DrawFn) -> str:
    """An IPv6 address, often one that holds an IPv4 address."""
    prefixes = ["::ffff:0:0", "::", "::ffff:0:0:0", "64:ff9b::", "64:ff9b:1::", "2606::5efe:0:0", "fe80::", "2002::"]
    holding = st.builds(
        lambda prefix, v4: IPv6Address(int(IPv6Address(prefix)) | int(v4)), st.sampled_from(prefixes), V4
    )
    six_to_four = V4.map(lambda v4: IPv6Address((0x2002 << 112) | (int(v4) << 80) | 1))
    address = draw(st.one_of(st.ip_addresses(v=6), holding, six_to_four))
    zone = draw(st.sampled_from(["", "", "", "%25lo", "%1"]))
    return f"[{draw(st.sampled_from([address.compressed, address.exploded, address.compressed.upper()]))}{zone}]"


def reaches(address: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    """The address and all those that it holds, by whichever rule."""
    held = [IPv4Address(address.packed[-4:])] if address in ipaddress.ip_network("64:ff9b::/96") else []
    if isinstance(address, IPv6Address):
        held += [inner for inner in (address.ipv4_mapped, address.sixtofour, *(address.teredo or ())) if inner]
    return [address, *held]


@settings(max_examples=500, deadline=None)
@given(host=st.one_of(spelled_v4(), spelled_v6()), port=st.sampled_from(["", ":443", ":8443"]))
async def test_whatever_is_let_through_is_global(host: str, port: str) -> None:
    try:
        found = await judged(f"https://{host}{port}/")
    except (AddressRefused, NotReached):
        return
    for address in found:
        assert all(inner.is_global and not inner.is_multicast for inner in reaches(ipaddress.ip_address(address)))


@settings(deadline=None)
@given(text=st.text(st.sampled_from("htps:/@[]%.\\01279afx-_#?& \t\x00。１localhost")))
async def test_no_text_does_anything_but_pass_or_be_refused(text: str) -> None:
    for url in (text, f"https://{text}", f"https://public.example{text}"):
        try:
            await judged(url)
        except (AddressRefused, NotReached):
            continue
