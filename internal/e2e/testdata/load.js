// An agent as one writes it for Node: it posts until a file is there, and says
// at its end what failed. It knows of no proxy, and what Node trusts it reads
// once, when it starts.
'use strict'
const fs = require('fs')
const https = require('https')

const [url, stop] = process.argv.slice(2)
const tally = {sent: 0, failed: {}}
const patience = 30000 // ms

function byHTTPS(agent) {
  return body => new Promise((resolve, reject) => {
    const request = https.request(url, {agent, method: 'POST', headers: {'Content-Type': 'text/plain'}}, answer => {
      let text = ''
      answer.setEncoding('utf8')
      answer.on('data', piece => { text += piece })
      answer.on('end', () => resolve([answer.statusCode, text]))
      answer.on('error', reject)
    })
    request.setTimeout(patience, () => request.destroy(new Error('no answer')))
    request.on('error', reject)
    request.end(body)
  })
}

async function byFetch(body) {
  const answer = await fetch(url, {method: 'POST', body, signal: AbortSignal.timeout(patience)})
  return [answer.status, await answer.text()]
}

async function work(name, post) {
  for (let n = 0; !fs.existsSync(stop); n++) {
    const body = `${name}, request ${n}`
    let why
    try {
      const [status, text] = await post(body)
      if (status !== 200) why = `${status} ${text}`
      else if (!text.endsWith(body)) why = `the answer is ${text}`
    } catch (e) {
      why = `${name}: ${e.cause ?? e}`
    }
    tally.sent++
    if (why) tally.failed[why] = (tally.failed[why] ?? 0) + 1
    await new Promise(resolve => setTimeout(resolve, 5)) // it has the machine's cores not for itself
  }
}

// A resumed session does not show the server's certificate again, and Node resumes where it may.
Promise.all([
  work('a connection each', byHTTPS(new https.Agent({keepAlive: false}))),
  work('a handshake each', byHTTPS(new https.Agent({keepAlive: false, maxCachedSessions: 0}))),
  work('one connection', byHTTPS(new https.Agent({keepAlive: true, maxSockets: 1}))),
  work('fetch', byFetch),
]).then(() => console.log(JSON.stringify(tally)))
