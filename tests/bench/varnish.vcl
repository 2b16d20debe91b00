vcl 4.1;
# Varnish as an embeddings cache behind a front that names the body in X-Body-Hash.
import std;
backend provider { .host = "127.0.0.1"; .port = "%PROVIDER%"; }
sub vcl_recv {
	if (req.method == "POST") {
		std.cache_req_body(64KB);
		unset req.http.Authorization;
		return (hash);
	}
}
sub vcl_hash {
	hash_data(req.http.X-Body-Hash);
}
sub vcl_backend_fetch {
	set bereq.method = "POST";
}
sub vcl_backend_response {
	set beresp.ttl = 1h;
	set beresp.do_stream = true;
}
sub vcl_deliver {
	if (obj.hits > 0) {
		set resp.http.X-Cache = "HIT";
	} else {
		set resp.http.X-Cache = "MISS";
	}
}
