package resolver

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
)

// Address4 is the address that the name has here, in 198.19.0.0/16. It leaves
// out the first and the last, which some programs take for no host's.
func Address4(host string) netip.Addr {
	n := binary.BigEndian.Uint64(hash(host))%(1<<16-2) + 1
	return netip.AddrFrom4([4]byte{198, 19, byte(n >> 8), byte(n)})
}

// Address6 is the name's address in fdae:6a11:5e9::/64.
func Address6(host string) netip.Addr {
	a := [16]byte{0xfd, 0xae, 0x6a, 0x11, 0x05, 0xe9}
	copy(a[8:], hash(host)[8:16])
	a[15] |= 1 // no subnet-router anycast address (RFC 4291 section 2.6.1)
	return netip.AddrFrom16(a)
}

func hash(host string) []byte {
	sum := sha256.Sum256([]byte("aegrail synthetic address\n" + host))
	return sum[:]
}
