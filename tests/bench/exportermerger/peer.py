"""The peer of the benchmark: merges pages as one would with python3-prometheus-client, URLs on the
command line. GET /metrics fetches all of them in parallel, parses, adds merger_url, writes."""

import sys
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.request import urlopen

from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

URLS = sys.argv[1:]


def fetch(url):
    with urlopen(url, timeout=30) as answer:
        return url, answer.read().decode()


class Merged:
    def collect(self):
        families = {}
        with ThreadPoolExecutor(8) as pool:
            for url, text in pool.map(fetch, URLS):
                for family in text_string_to_metric_families(text):
                    merged = families.setdefault(
                        family.name, Metric(family.name, family.documentation, family.type))
                    for s in family.samples:
                        merged.add_sample(s.name, {**s.labels, 'merger_url': url}, s.value)
        return [families[name] for name in sorted(families)]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        page = generate_latest(Merged())
        self.send_response(200)
        self.send_header('Content-Length', str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *args):
        pass


server = HTTPServer(('127.0.0.1', 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
