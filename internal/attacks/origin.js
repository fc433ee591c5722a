// An origin that answers each request with what Node's parser read of it.
const http = require("http");

http.createServer((req, res) => {
  const body = [];
  req.on("data", (d) => body.push(d));
  req.on("end", () => {
    const path = decodeURIComponent(req.url.split("?")[0]);
    const answer = JSON.stringify({
      method: req.method,
      path: Buffer.from(path).toString("base64"),
      body: Buffer.concat(body).toString("base64"),
    });
    res.setHeader("Content-Length", Buffer.byteLength(answer));
    res.end(answer);
  });
}).listen(Number(process.argv[2]), "127.0.0.1");
