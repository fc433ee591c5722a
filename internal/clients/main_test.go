package clients

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/arpitcoder/aegrail-engine/internal/clients/origin"
)

const (
	// insideEnv is set in the namespace, to the directory that both processes share.
	insideEnv = "AEGRAIL_CLIENTS_INSIDE"
	cacheEnv  = "AEGRAIL_CLIENTS_CACHE" // where run.sh has put npm's packages and nginx
)

// suite is what the tests share, made once by TestMain.
var suite struct {
	dir     string // to work in
	cache   string
	engine  string // the program under test
	roots   string // the file that --upstream-roots takes
	policy  string
	origins *origin.Servers
}

func TestMain(m *testing.M) {
	var code int
	var err error
	if dir := os.Getenv(insideEnv); dir != "" {
		code, err = runInside(m, dir)
	} else {
		code, err = runOutside()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "clients:", err)
		code = 1
	}
	os.Exit(code)
}

// runOutside builds the engine, while there is a network, and starts this
// program again in namespaces of its own.
func runOutside() (int, error) {
	if os.Getenv(cacheEnv) == "" {
		return 0, errors.New("start this with internal/clients/run.sh, which installs the clients")
	}
	dir, err := os.MkdirTemp("", "aegrail-clients-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, "aegrail-engine"), "./cmd/aegrail-engine")
	build.Dir = filepath.Join("..", "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("building aegrail-engine: %w\n%s", err, out)
	}
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"="+dir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	if err != nil {
		err = fmt.Errorf("starting in a user, mount and network namespace, which the kernel must let users have: %w", err)
	}
	return 0, err
}

func runInside(m *testing.M, dir string) (_ int, err error) {
	if err := furnish(dir); err != nil {
		return 0, err
	}
	suite.dir, suite.cache = dir, os.Getenv(cacheEnv)
	suite.engine = filepath.Join(dir, "aegrail-engine")
	suite.roots = filepath.Join(dir, "origins.pem")
	if suite.policy, err = filepath.Abs("testdata/policy.yaml"); err != nil {
		return 0, err
	}
	work := filepath.Join(dir, "origins")
	suite.origins, err = origin.Start(origin.Config{Dir: work, Nginx: filepath.Join(suite.cache, "nginx/usr/sbin/nginx")})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, suite.origins.Close()) }()
	if err := os.WriteFile(suite.roots, suite.origins.RootsPEM, 0o600); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// furnish makes the new namespace a place to work in: loopback up, and an
// /etc/hosts that knows the origins, for this process and its children alone.
func furnish(dir string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("bringing up loopback: %w", err)
	}
	hosts := filepath.Join(dir, "hosts")
	want := []byte(origin.Hosts() + "127.0.0.1 " + gatewayHost + "\n")
	if err := os.WriteFile(hosts, want, 0o644); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("taking the mounts for ourselves: %w", err)
	}
	if err := unix.Mount(hosts, "/etc/hosts", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting our hosts over /etc/hosts: %w", err)
	}
	if got, err := os.ReadFile("/etc/hosts"); err != nil || !bytes.Equal(got, want) {
		return fmt.Errorf("/etc/hosts is not ours after the mount: %w", err)
	}
	return nil
}
