package inject

import (
	"errors"
	"strings"
	"testing"
)

// A node mounts volumes over its own network, where nothing is redirected.
func TestVolumesThatTheNodeFetchesAreRefused(t *testing.T) {
	for _, source := range []string{
		"nfs: {server: 192.0.2.1, path: /}", "iscsi: {targetPortal: 192.0.2.1, iqn: i, lun: 0}", "cephfs: {monitors: [192.0.2.1]}", "rbd: {monitors: [192.0.2.1], image: i}",
		"glusterfs: {endpoints: e, path: p}", "flexVolume: {driver: x/y}", "gitRepo: {repository: 'https://evil.example'}", "image: {reference: 'evil.example/x:1'}",
		"csi: {driver: nfs.csi.k8s.io, volumeAttributes: {server: 192.0.2.1}}", "azureFile: {secretName: s, shareName: s}", "azureDisk: {diskName: d, diskURI: u}",
		"awsElasticBlockStore: {volumeID: v}", "gcePersistentDisk: {pdName: p}", "cinder: {volumeID: v}", "fc: {lun: 0}", "flocker: {datasetName: d}", "quobyte: {registry: r, volume: v}",
		"vsphereVolume: {volumePath: v}", "photonPersistentDisk: {pdID: p}", "portworxVolume: {volumeID: v}", "scaleIO: {gateway: g, system: s, secretRef: {name: s}}", "storageos: {}",
		"hostPath: {path: /}", "emptyDir: {}, nfs: {server: 192.0.2.1, path: /}", "",
	} {
		field := "spec.volumes[v]"
		if kind, _, has := strings.Cut(strings.TrimPrefix(source, "emptyDir: {}, "), ":"); has {
			field += "." + kind
		}
		in := testPod(t, "volumes: [{name: v, "+source+"}]", "")
		_, err := Pod(in, config())
		wantField(t, source, err, field)

		late := injected(t, "simple")
		late.Spec.Volumes = append(late.Spec.Volumes, in.Spec.Volumes...)
		wantField(t, source+", in Check", Check(late, config()), field)
		wantField(t, source+", in CheckLive", CheckLive(late), field)
	}
	for _, source := range []string{
		"configMap: {name: c}", "downwardAPI: {}", "emptyDir: {medium: Memory}", "persistentVolumeClaim: {claimName: c}", "projected: {sources: [{configMap: {name: c}}]}",
		"secret: {secretName: s}", "ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}",
	} {
		out, err := Pod(testPod(t, "volumes: [{name: v, "+source+"}]", ""), config())
		if err == nil {
			err = errors.Join(Check(out, config()), CheckLive(out))
		}
		if err != nil {
			t.Errorf("%s: %v", source, err)
		}
	}
}
