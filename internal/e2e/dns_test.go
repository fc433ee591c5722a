package e2e

import (
	"context"
	"net"
	"strings"
	"sync"

	"github.com/miekg/dns"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// clusterDNS is where pods ask for names, as kubelet tells them.
const clusterDNS = "10.96.0.10:53"

// nameserver is the cluster's DNS: Services and the names of the origins. It
// keeps what it was asked, as a name that gets here from an agent has left the pod.
type nameserver struct {
	kube    kubernetes.Interface
	world   map[string]string // names of the world, and their addresses
	servers []*dns.Server

	mu    sync.Mutex
	asked []string
}

func startNameserver(kube kubernetes.Interface, world map[string]string) (*nameserver, error) {
	n := &nameserver{kube: kube, world: world}
	packets, err := net.ListenPacket("udp", clusterDNS)
	if err != nil {
		return nil, err
	}
	stream, err := net.Listen("tcp", clusterDNS)
	if err != nil {
		return nil, err
	}
	n.servers = []*dns.Server{{PacketConn: packets, Handler: n}, {Listener: stream, Handler: n}}
	for _, s := range n.servers {
		go s.ActivateAndServe()
	}
	return n, nil
}

func (n *nameserver) stop() {
	for _, s := range n.servers {
		s.Shutdown()
	}
}

// questions are the names that were asked for so far.
func (n *nameserver) questions() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.asked...)
}

func (n *nameserver) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	answer := new(dns.Msg).SetReply(q)
	answer.Authoritative = true
	if len(q.Question) != 1 {
		answer.Rcode = dns.RcodeFormatError
		w.WriteMsg(answer)
		return
	}
	name := strings.ToLower(strings.TrimSuffix(q.Question[0].Name, "."))
	n.mu.Lock()
	n.asked = append(n.asked, name)
	n.mu.Unlock()
	address := n.lookup(name)
	switch {
	case address == nil:
		answer.Rcode = dns.RcodeNameError
	case q.Question[0].Qtype == dns.TypeA:
		header := dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}
		answer.Answer = []dns.RR{&dns.A{Hdr: header, A: address}}
	}
	w.WriteMsg(answer)
}

// lookup is the address of a name of the world or of a Service, or nil.
func (n *nameserver) lookup(name string) net.IP {
	if a, ok := n.world[name]; ok {
		return net.ParseIP(a)
	}
	labels := strings.Split(strings.TrimSuffix(name, ".svc.cluster.local"), ".")
	if len(labels) != 2 || !strings.HasSuffix(name, ".svc.cluster.local") {
		return nil
	}
	s, err := n.kube.CoreV1().Services(labels[1]).Get(context.Background(), labels[0], metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return net.ParseIP(s.Spec.ClusterIP) // nil for a headless one, which nothing here is
}
