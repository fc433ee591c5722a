package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	dirEnv   = "AEGRAIL_E2E_DIR"    // a folder of this run's own
	stackEnv = "AEGRAIL_E2E_STACK"  // what stack/build.sh has built
	groupEnv = "AEGRAIL_E2E_CGROUP" // the control group that kubelet makes its own below
)

// patience bounds everything that a test waits for. It is long since nothing
// comes near it unless it hangs.
const patience = 2 * time.Minute

// suite is what the tests share, made once by TestMain.
var suite struct {
	begun   time.Time
	ended   chan struct{} // closes when the cluster's first process has ended
	dir     string        // of this run: bin, images, log, kubelet
	stack   string        // programs that the cluster is made of
	kube    kubernetes.Interface
	machine *machine // that the node is
	dns     *nameserver
	origins *origins
	logs    *collector

	// Made by the first test that asks.
	byHand, installed bool
	injected          agent
}

func TestMain(m *testing.M) {
	hold := flag.Bool("hold", false, "keep the cluster after the tests, until run.sh is interrupted")
	flag.Parse()
	code, err := run(m, *hold)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

// run has the cluster up while the tests run.
func run(m *testing.M, hold bool) (code int, err error) {
	suite.begun, suite.dir, suite.stack = time.Now(), os.Getenv(dirEnv), os.Getenv(stackEnv)
	if suite.dir == "" || suite.stack == "" {
		return 0, errors.New("start this with internal/e2e/run.sh, which makes the namespace that it runs in")
	}
	if suite.origins, err = startOrigins(); err != nil {
		return 0, err
	}
	defer suite.origins.stop()
	if suite.logs, err = startCollector(); err != nil {
		return 0, err
	}
	defer suite.logs.server.Close()
	if err := prepare(); err != nil {
		return 0, err
	}
	node := exec.Command("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private",
		"cluster/node.sh", suite.dir, suite.stack, nodeIP, os.Getenv(groupEnv))
	node.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if node.Stderr, err = os.Create(filepath.Join(suite.dir, "log", "node")); err != nil {
		return 0, err
	}
	if suite.machine, err = switchOf(node); err != nil {
		return 0, err
	}
	if err := node.Start(); err != nil {
		return 0, err
	}
	suite.ended = make(chan struct{})
	go func() {
		node.Wait()
		close(suite.ended)
	}()
	defer func() {
		if err != nil || code != 0 {
			explain()
		}
		node.Process.Kill() // SIGTERM is blocked while unshare waits
		<-suite.ended
	}()
	if suite.kube, err = connect(); err != nil {
		return 0, err
	}
	if suite.dns, err = startNameserver(suite.kube, world()); err != nil {
		return 0, err
	}
	defer suite.dns.stop()
	if err := nodeReady(); err != nil {
		return 0, err
	}
	progress("the node is ready")
	if err := installCertManager(); err != nil {
		return 0, err
	}
	progress("cert-manager is installed")
	code = m.Run()
	sessions, records, err := suite.logs.verify()
	if err == nil {
		progress("%d records of %d engines verify, as they were delivered; %d checkpoints beside them", records, sessions, suite.logs.notes)
	}
	if hold {
		wait()
	}
	return code, err
}

// progress says on the way how long things take.
func progress(format string, args ...any) {
	fmt.Printf("%7.1f s  %s\n", time.Since(suite.begun).Seconds(), fmt.Sprintf(format, args...))
}

// prepare writes certificates and images.
func prepare() error {
	if err := os.MkdirAll(filepath.Join(suite.dir, "log"), 0o755); err != nil {
		return err
	}
	if err := writePKI(filepath.Join(suite.dir, "pki")); err != nil {
		return err
	}
	ours := func(program string) string { return filepath.Join(suite.dir, "bin", program) }
	images := func(name string) string { return filepath.Join(suite.dir, "images", name+".tar") }
	err := writeImages(images("pause"), layer{files: map[string]string{"/pause": ours("pause")}},
		image{tag: "docker.io/local/pause:1", entry: []string{"/pause"}})
	if err != nil {
		return err
	}
	cm := filepath.Join(suite.stack, "certmanager")
	err = writeImages(images("cert-manager"), layer{files: map[string]string{"/certmanager": cm}},
		image{tag: "quay.io/jetstack/cert-manager-controller:" + certManager, entry: []string{"/certmanager", "controller"}, user: "1000"},
		image{tag: "quay.io/jetstack/cert-manager-webhook:" + certManager, entry: []string{"/certmanager", "webhook"}, user: "1000"},
		image{tag: "quay.io/jetstack/cert-manager-cainjector:" + certManager, entry: []string{"/certmanager", "cainjector"}, user: "1000"})
	if err != nil {
		return err
	}
	// The image's roots, and the authority of the tests' world with them.
	roots, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt")
	if err != nil {
		return err
	}
	if err := os.WriteFile(ours("roots.pem"), append(roots, suite.origins.ca.pem()...), 0o644); err != nil {
		return err
	}
	product := layer{
		files: map[string]string{"/etc/ssl/certs/ca-certificates.crt": ours("roots.pem")},
		dirs:  map[string]int{"/var/log/aegrail": 65532},
	}
	programs, err := filepath.Glob(ours("aegrail-*")) // run.sh has built all of cmd/
	if err != nil {
		return err
	}
	for _, p := range programs {
		product.files["/"+filepath.Base(p)] = p
	}
	if err := writeImages(images("product"), product, image{tag: productImage, entry: []string{"/aegrail-engine"}, user: "65532:65532"}); err != nil {
		return err
	}
	agent := layer{
		files: map[string]string{"/agent": ours("agent"), "/setuid": ours("agent"), "/bin/busybox": "/bin/busybox"},
		modes: map[string]mode{"/setuid": {owner: plainEngine, bits: 0o6755}},
		links: map[string]string{},
	}
	applets, err := exec.Command("/bin/busybox", "--list").Output()
	if err != nil {
		return fmt.Errorf("busybox, of Debian's busybox-static: %w", err)
	}
	for _, a := range strings.Fields(string(applets)) {
		if a != "busybox" {
			agent.links["/bin/"+a] = "busybox"
		}
	}
	if err := writeImages(images("agent"), agent, image{tag: agentImage, entry: []string{"/agent"}}); err != nil {
		return err
	}
	node := layer{links: agent.links}
	if node.files, err = nodeFiles(); err != nil {
		return err
	}
	node.files["/bin/busybox"], node.files["/load.js"] = "/bin/busybox", "testdata/load.js"
	return writeImages(images("node"), node, image{tag: nodeImage, entry: []string{"/usr/bin/node", "/load.js"}})
}

// connect waits for the API server.
func connect() (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(suite.dir, "pki", "admin.kubeconfig"))
	if err != nil {
		return nil, err
	}
	config.QPS = -1 // no limit of the client's own
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return kube, until("the API server answers", func(ctx context.Context) error {
		return kube.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

func nodeReady() error {
	return until("the node is ready", func(ctx context.Context) error {
		node, err := suite.kube.CoreV1().Nodes().Get(ctx, "node1", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range node.Status.Conditions {
			if c.Type == "Ready" && c.Status == "True" {
				return nil
			}
		}
		return fmt.Errorf("its conditions are %v", node.Status.Conditions)
	})
}

// until polls check until it returns nil, and returns its last error where that takes too long.
func until(what string, check func(context.Context) error) error {
	return within(patience, what, check)
}

// within is until for what takes its time by design.
func within(limit time.Duration, what string, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-suite.ended:
			return fmt.Errorf("the cluster ended before %s: %w", what, err)
		case <-ctx.Done():
			return fmt.Errorf("waited %s until %s: %w", limit, what, err)
		}
	}
}

// wait keeps the cluster for a person to look at.
func wait() {
	fmt.Printf("The cluster stays until Ctrl-C. In another shell, as root:\n\n  nsenter --net=/proc/%d/ns/net %s/kubectl --kubeconfig %s/pki/admin.kubeconfig get pods -A\n\n",
		os.Getpid(), suite.stack, suite.dir)
	<-suite.ended
}
