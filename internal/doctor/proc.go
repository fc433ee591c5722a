//go:build linux

package doctor

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// maxProc bounds what is read of a file of /proc. A table of connections grows
// with their number.
const maxProc = 4 << 20 // 4 MiB

// path is name below the root, or for what is not of the kernel below that of
// the agent's process.
func (p *patient) path(name string) string {
	name = strings.TrimPrefix(name, "/")
	if p.PID != 0 && name != "proc" && !strings.HasPrefix(name, "proc/") {
		return filepath.Join(p.Root, "proc", strconv.Itoa(p.PID), "root", name)
	}
	return filepath.Join(p.Root, name)
}

func (p *patient) read(name string, most int64) ([]byte, error) {
	f, err := os.Open(p.path(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most))
}

// connection is a row of /proc/net/tcp (proc_net_tcp of the kernel's
// Documentation/networking).
type connection struct {
	local, remote netip.AddrPort
	listening     bool
	uid           uint32
}

// connections are those of the network namespace, of both families.
func (p *patient) connections() []connection {
	var all []connection
	for _, name := range []string{"proc/net/tcp", "proc/net/tcp6"} {
		data, err := p.read(name, maxProc)
		if err != nil {
			continue // no IPv6
		}
		lines := bufio.NewScanner(bytes.NewReader(data))
		lines.Scan() // the heading
		for lines.Scan() {
			if c, ok := parseConnection(lines.Text()); ok {
				all = append(all, c)
			}
		}
	}
	return all
}

func parseConnection(line string) (c connection, ok bool) {
	f := strings.Fields(line)
	if len(f) < 8 {
		return c, false
	}
	var err1, err2 error
	c.local, err1 = parseEnd(f[1])
	c.remote, err2 = parseEnd(f[2])
	uid, err3 := strconv.ParseUint(f[7], 10, 32)
	c.listening, c.uid = f[3] == "0A", uint32(uid)
	return c, err1 == nil && err2 == nil && err3 == nil
}

// parseEnd reads 0100007F:3A99: words as the machine has them, and a port.
func parseEnd(text string) (netip.AddrPort, error) {
	words, portText, _ := strings.Cut(text, ":")
	data, err := hex.DecodeString(words)
	if err != nil {
		return netip.AddrPort{}, err
	}
	port, err := strconv.ParseUint(portText, 16, 16)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if len(data)%4 != 0 {
		return netip.AddrPort{}, fmt.Errorf("an address of %d bytes", len(data))
	}
	for i := 0; i < len(data); i += 4 {
		binary.NativeEndian.PutUint32(data[i:], binary.BigEndian.Uint32(data[i:]))
	}
	addr, ok := netip.AddrFromSlice(data)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("an address of %d bytes", len(data))
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), nil
}

// listener is the user that listens on port, if there is one.
func (p *patient) listener(port uint16) (uid uint32, ok bool) {
	for _, c := range p.connections() {
		if c.listening && c.local.Port() == port {
			return c.uid, true
		}
	}
	return 0, false
}

// Listens reports whether somebody listens on a TCP port in this network
// namespace.
func Listens(port uint16) bool {
	_, ok := (&patient{Config{Root: "/"}}).listener(port)
	return ok
}

// landed reports whether the connection whose end here is local has its other
// end at the engine's transparent port, in this very namespace.
func (p *patient) landed(local netip.AddrPort) bool {
	local = netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
	return slices.ContainsFunc(p.connections(), func(c connection) bool {
		return !c.listening && c.local.Port() == p.Transparent && c.remote == local
	})
}

// status is /proc/self/status, or that of the agent's process :: name → value.
func (p *patient) status() (map[string]string, error) {
	name := "proc/self/status"
	if p.PID != 0 {
		name = filepath.Join("proc", strconv.Itoa(p.PID), "status")
	}
	data, err := p.read(name, maxProc)
	if err != nil {
		return nil, err
	}
	return parseStatus(data), nil
}

func parseStatus(data []byte) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			out[name] = strings.TrimSpace(value)
		}
	}
	return out
}

// dropped6 is how many IPv6 packets of this namespace were not let out, for
// whatever reason (Ip6OutDiscards of RFC 4293).
func (p *patient) dropped6() (uint64, error) {
	data, err := p.read("proc/net/snmp6", maxProc)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "Ip6OutDiscards" {
			return strconv.ParseUint(f[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no Ip6OutDiscards", p.path("proc/net/snmp6"))
}

// engines are the processes in sight that are the engine's: of its user, or
// where that is not known of its name; not this one.
func (p *patient) engines() []int {
	var pids []int
	entries, _ := os.ReadDir(p.path("proc"))
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		data, err := p.read(filepath.Join("proc", e.Name(), "status"), maxProc)
		if err != nil {
			continue // it has ended
		}
		s := parseStatus(data)
		uid, _, _ := strings.Cut(s["Uid"], "\t")
		its := uid == strconv.FormatUint(uint64(p.EngineUID), 10)
		if p.EngineUID == 0 {
			its = s["Name"] == "aegrail-engine"
		}
		if its {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Environ is the environment that the process pid was started with.
func Environ(pid int) ([]string, error) {
	data, err := (&patient{Config{Root: "/"}}).read(filepath.Join("proc", strconv.Itoa(pid), "environ"), maxProc)
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimRight(string(data), "\x00"), "\x00"), nil
}

// files calls see for each readable file below the directory dir, in order, up
// to 1000 files and 256 KiB of each.
func (p *patient) files(dir string, see func(name string, data []byte)) {
	left := 1000
	_ = filepath.WalkDir(p.path(dir), func(name string, d fs.DirEntry, err error) error {
		if left--; left < 0 {
			return fs.SkipAll
		}
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // what cannot be read is held
		}
		rel, err := filepath.Rel(p.path("/"), name)
		if err != nil {
			return nil //nolint:nilerr // it is below the root
		}
		if info, err := os.Stat(name); err != nil || !info.Mode().IsRegular() {
			return nil //nolint:nilerr // likewise; a pipe would hold us up
		}
		if data, err := p.read(rel, 256<<10); err == nil {
			see("/"+rel, data)
		}
		return nil
	})
}
