package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// layer is what an image consists of: paths in it, of files, links and directories.
type layer struct {
	files map[string]string // path in the image -> file here
	modes map[string]mode   // path of a file -> owner and mode, where they are not root and the file's own
	links map[string]string // path in the image -> what the symbolic link says
	dirs  map[string]int    // path in the image -> its owner
}

// mode is how a file of an image is there.
type mode struct {
	owner int
	bits  int64
}

// image is a name for a layer, and how it is started.
type image struct {
	tag   string // with a registry and a tag that is not latest, else kubelet would pull it
	entry []string
	user  string
}

// writeImages writes images that share one layer, as the archive of `docker
// save`, which containerd imports. There is no registry to pull from.
func writeImages(file string, l layer, images ...image) error {
	data, err := l.tar()
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := writeEntry(w, "layer.tar", data); err != nil {
		return err
	}
	var manifest []map[string]any
	for _, i := range images {
		config, err := json.Marshal(map[string]any{
			"architecture": "amd64", "os": "linux", "created": time.Unix(0, 0).UTC(),
			"config": map[string]any{"Env": []string{"PATH=/bin:/usr/bin:/sbin:/usr/sbin"}, "Entrypoint": i.entry, "User": i.user},
			"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(data))}},
		})
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%x.json", sha256.Sum256(config))
		if err := writeEntry(w, name, config); err != nil {
			return err
		}
		manifest = append(manifest, map[string]any{"Config": name, "RepoTags": []string{i.tag}, "Layers": []string{"layer.tar"}})
	}
	list, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	if err := writeEntry(w, "manifest.json", list); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, archive.Bytes(), 0o600)
}

func writeEntry(w *tar.Writer, name string, data []byte) error {
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

func (l layer) tar() ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	made := map[string]bool{}
	var dir func(name string, mode int64, owner int) error
	dir = func(name string, mode int64, owner int) error {
		if name == "." || made[name] {
			return nil
		}
		if err := dir(path.Dir(name), 0o755, 0); err != nil {
			return err
		}
		made[name] = true
		return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode, Uid: owner, Gid: owner})
	}
	if err := dir("tmp", 0o1777, 0); err != nil {
		return nil, err
	}
	for name, owner := range l.dirs {
		if err := dir(strings.TrimPrefix(name, "/"), 0o755, owner); err != nil {
			return nil, err
		}
	}
	for name, source := range l.files {
		name = strings.TrimPrefix(name, "/")
		data, err := os.ReadFile(source)
		if err != nil {
			return nil, err
		}
		info, err := os.Stat(source)
		if err != nil {
			return nil, err
		}
		if err := dir(path.Dir(name), 0o755, 0); err != nil {
			return nil, err
		}
		m, ok := l.modes["/"+name]
		if !ok {
			m.bits = int64(info.Mode().Perm())
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: m.bits, Uid: m.owner, Gid: m.owner, Size: int64(len(data))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(data); err != nil {
			return nil, err
		}
	}
	for name, target := range l.links {
		name = strings.TrimPrefix(name, "/")
		if err := dir(path.Dir(name), 0o755, 0); err != nil {
			return nil, err
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), w.Close()
}
