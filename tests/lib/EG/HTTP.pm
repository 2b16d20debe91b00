package EG::HTTP;

# An HTTP/1.1 client for tests, over TCP or Unix sockets.
#
#   my $r = http('POST', "$url/v1/embeddings", [ Authorization => 'Bearer k' ], $body);
#   my $c = EG::HTTP->new($url);           # one connection, keep-alive
#   my $r = $c->request('GET', '/x');      # or raw: $c->send($bytes); $c->response; $c->eof
#   my @r = http_many([ { url => ..., method => 'POST', target => '/x', headers => [...], body => ... }, ... ],
#                     connections => 1000);
#
# A response is a hash: status, reason, version, headers (lower-case name => value, repeats joined by
# ", "), header_list ([name, value]...), body, complete; http_many() adds ms (start to last byte),
# first_ms (to the first byte) and, for what went wrong, error with status 0.
#
# An address is "http://127.0.0.1:80", "127.0.0.1:80" or "unix:/path".

use strict;
use warnings;
use Errno qw(EAGAIN EINTR EINPROGRESS);
use Exporter 'import';
use IO::Socket::INET;
use IO::Socket::UNIX;
use JSON::PP ();
use Socket qw(SOCK_STREAM IPPROTO_TCP TCP_NODELAY SOL_SOCKET SO_LINGER SO_ERROR SO_RCVBUF AF_INET PF_INET PF_UNIX
	pack_sockaddr_in pack_sockaddr_un inet_aton);
use Time::HiRes ();

use EG::Build qw($TIMEOUT);
use EG::Loop;

our @EXPORT = qw(http http_many http_json);

# ---- Parsing, incremental; also used by the fake servers for requests ----

# new('response' or 'request', no_body => 1 for the answer to HEAD)
sub EG::HTTP::Parser::new
{
	my ($class, $kind, %o) = @_;
	return bless { kind => $kind, in => '', state => 'head', no_body => $o{no_body} }, $class;
}

# Feed bytes; returns the message when it is complete, else undef. What follows stays in {in}.
sub EG::HTTP::Parser::feed
{
	my ($self, $data) = @_;
	$self->{in} .= $data if defined $data;
	while (1) {
		my $state = $self->{state};
		if ($state eq 'head') {
			my $end = index $self->{in}, "\r\n\r\n";
			if ($end < 0) {
				die "head over 1 MiB\n" if length $self->{in} > 1 << 20;
				return;
			}
			$self->_head(substr $self->{in}, 0, $end + 4, '');
		} elsif ($state eq 'length') {
			my $n = length $self->{in};
			$n = $self->{left} if $n > $self->{left};
			$self->{m}{body} .= substr $self->{in}, 0, $n, '';
			$self->{left} -= $n;
			return if $self->{left};
			return $self->_done;
		} elsif ($state eq 'close') {
			$self->{m}{body} .= $self->{in};
			$self->{in} = '';
			return;
		} elsif ($state eq 'chunk') {
			my $end = index $self->{in}, "\r\n";
			return if $end < 0;
			my $line = substr $self->{in}, 0, $end + 2, '';
			$line =~ /^([0-9A-Fa-f]+)(?:;.*)?\r\n$/ or die "bad chunk size: $line\n";
			$self->{left} = hex $1;
			$self->{state} = $self->{left} ? 'data' : 'trailer';
		} elsif ($state eq 'data') {
			return if length $self->{in} < $self->{left} + 2;
			$self->{m}{body} .= substr $self->{in}, 0, $self->{left}, '';
			substr($self->{in}, 0, 2, '') eq "\r\n" or die "no CRLF after a chunk\n";
			$self->{m}{chunks}++;
			$self->{state} = 'chunk';
		} elsif ($state eq 'trailer') {
			my $end = index $self->{in}, "\r\n";
			return if $end < 0;
			return $self->_done if substr($self->{in}, 0, $end + 2, '') eq "\r\n";
		} elsif ($state eq 'done') {
			return $self->_done;
		}
	}
}

# The peer closed: the message if that completes it, else undef.
sub EG::HTTP::Parser::eof
{
	my ($self) = @_;
	return $self->{state} eq 'close' ? $self->_done : undef;
}

sub EG::HTTP::Parser::partial { return $_[0]{m} } # what is known of an incomplete message

sub EG::HTTP::Parser::_done
{
	my ($self) = @_;
	my $m = delete $self->{m};
	$m->{complete} = 1;
	$self->{state} = 'head';
	return $m;
}

sub EG::HTTP::Parser::_head
{
	my ($self, $head) = @_;
	my ($first, @lines) = split /\r\n/, $head;
	my $m = $self->{m} = { headers => {}, header_list => [], body => '', chunks => 0, first_line => $first };
	if ($self->{kind} eq 'response') {
		$first =~ m{^(HTTP/1\.[01]) (\d{3})(?: (.*))?$} or die "bad status line: $first\n";
		@$m{qw(version status reason)} = ($1, $2 + 0, $3);
	} else {
		$first =~ m{^(\S+) (\S+) (HTTP/1\.[01])$} or die "bad request line: $first\n";
		@$m{qw(method target version)} = ($1, $2, $3);
	}
	for (@lines) {
		/^([^\s:]+):[ \t]*(.*?)[ \t]*$/ or die "bad header line: $_\n";
		push @{ $m->{header_list} }, [ $1, $2 ];
		my $k = lc $1;
		$m->{headers}{$k} = exists $m->{headers}{$k} ? "$m->{headers}{$k}, $2" : $2;
	}
	my $h = $m->{headers};
	if ($self->{kind} eq 'response' && $m->{status} >= 100 && $m->{status} < 200) {
		push @{ $self->{informational} }, $m->{status};
		$self->{state} = 'head';
	} elsif ($self->{kind} eq 'response' && ($self->{no_body} || $m->{status} == 204 || $m->{status} == 304)) {
		$self->{state} = 'done';
	} elsif (($h->{'transfer-encoding'} // '') =~ /chunked$/i) {
		$self->{state} = 'chunk';
	} elsif (defined $h->{'content-length'}) {
		$h->{'content-length'} =~ /^\d+$/ or die "bad Content-Length: $h->{'content-length'}\n";
		$self->{left} = $h->{'content-length'};
		$self->{state} = 'length';
	} else {
		$self->{state} = $self->{kind} eq 'request' ? 'done' : 'close';
	}
	return;
}

my %REASON = (
	200 => 'OK', 400 => 'Bad Request', 401 => 'Unauthorized', 404 => 'Not Found', 408 => 'Request Timeout',
	409 => 'Conflict', 429 => 'Too Many Requests', 500 => 'Internal Server Error', 502 => 'Bad Gateway',
	503 => 'Service Unavailable', 504 => 'Gateway Timeout',
);
sub reason { return $REASON{ $_[0] } // 'Status' }

# ---- Requests ----

sub _address
{
	my ($address) = @_;
	return ('unix', $1) if $address =~ m{^unix:(.+)$};
	return ('tcp', $1, $2) if $address =~ m{^(?:http://)?\[?([^/\]]+?)\]?:(\d+)/?$};
	die "EG::HTTP: bad address $address";
}

sub _pairs { my $h = shift // []; return ref $h eq 'HASH' ? map { $_, $h->{$_} } sort keys %$h : @$h }

# The bytes of a request. Host and Content-Length are added unless given (undef: left out).
sub format_request
{
	my ($method, $target, $headers, $body) = @_;
	my @pairs = _pairs($headers);
	my (%seen, $lines);
	$lines = '';
	while (my ($name, $value) = splice @pairs, 0, 2) {
		$seen{ lc $name } = 1;
		$lines .= "$name: $value\r\n" if defined $value;
	}
	my $head = "$method $target HTTP/1.1\r\n";
	$head .= "Host: localhost\r\n" if !$seen{host};
	$head .= 'Content-Length: ' . length($body) . "\r\n"
		if defined $body && !$seen{'content-length'} && !$seen{'transfer-encoding'};
	return $head . $lines . "\r\n" . ($body // '');
}

sub new
{
	my ($class, $address, %o) = @_;
	my ($kind, @at) = _address($address);
	my $sock = $kind eq 'unix'
		? IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $at[0])
		: IO::Socket::INET->new(PeerAddr => $at[0], PeerPort => $at[1], Timeout => $TIMEOUT);
	die "connect to $address: $!" if !$sock;
	setsockopt $sock, IPPROTO_TCP, TCP_NODELAY, 1 if $kind eq 'tcp';
	setsockopt $sock, SOL_SOCKET, SO_RCVBUF, $o{receive_buffer} if $o{receive_buffer};
	$sock->blocking(0);
	return bless { sock => $sock, parser => EG::HTTP::Parser->new('response'), timeout => $o{timeout} // $TIMEOUT },
		$class;
}

sub sock { return $_[0]{sock} }

sub _wait
{
	my ($self, $write, $deadline) = @_;
	my $v = '';
	vec($v, fileno($self->{sock}), 1) = 1;
	my $left = $deadline - Time::HiRes::time();
	die "timeout\n" if $left <= 0;
	my $n = $write ? select(undef, my $w = $v, undef, $left) : select(my $r = $v, undef, undef, $left);
	die "timeout\n" if $n == 0;
	return;
}

# Write all of it; dies when the peer is gone or does not read.
sub send
{
	my ($self, $data) = @_;
	my $deadline = Time::HiRes::time() + $self->{timeout};
	local $SIG{PIPE} = 'IGNORE';
	my $at = 0;
	while ($at < length $data) {
		my $n = syswrite $self->{sock}, $data, 1 << 20, $at;
		if (defined $n) {
			$at += $n;
		} elsif ($! == EAGAIN || $! == EINTR) {
			$self->_wait(1, $deadline);
		} else {
			die "write: $!\n";
		}
	}
	return $self;
}

# One read: bytes, '' at the end, dies on a reset or a timeout.
sub read_some
{
	my ($self, $max, $timeout) = @_;
	my $deadline = Time::HiRes::time() + ($timeout // $self->{timeout});
	while (1) {
		my $n = sysread $self->{sock}, my $data, $max // 65536;
		return $data if defined $n;
		die "read: $!\n" if $! != EAGAIN && $! != EINTR;
		$self->_wait(0, $deadline);
	}
}

# The next response; no_body => 1 after HEAD. Incomplete ones have complete => 0.
sub response
{
	my ($self, %o) = @_;
	my $p = $self->{parser};
	$p->{no_body} = $o{no_body};
	my $m = $p->feed('');
	while (!$m) {
		my $data = $self->read_some;
		if ($data eq '') {
			$m = $p->eof;
			return $m if $m;
			die "connection closed before an answer\n" if !$p->partial && $p->{in} eq '';
			return { %{ $p->partial // { status => 0, headers => {}, body => '' } }, complete => 0 };
		}
		$m = $p->feed($data);
	}
	return $m;
}

sub request
{
	my ($self, $method, $target, $headers, $body) = @_;
	$self->send(format_request($method, $target, $headers, $body));
	return $self->response(no_body => $method eq 'HEAD');
}

# True when the peer closes (a reset counts) without sending anything more.
sub eof
{
	my ($self) = @_;
	my $data = eval { $self->read_some };
	return defined $data ? $data eq '' && $self->{parser}{in} eq '' : $@ !~ /timeout/;
}

sub close { my ($self) = @_; CORE::close $self->{sock}; return }

# Close with a TCP reset.
sub reset
{
	my ($self) = @_;
	setsockopt $self->{sock}, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
	CORE::close $self->{sock};
	return;
}

# One request on a connection of its own: "http://host:port/target" or "unix:/path:/target".
sub http
{
	my ($method, $url, $headers, $body) = @_;
	my ($address, $target) = $url =~ m{^(http://[^/]+)(/.*)?$};
	($address, $target) = $url =~ m{^(unix:[^:]+):?(/.*)?$} if !defined $address;
	die "http: bad url $url" if !defined $address;
	return EG::HTTP->new($address)->request($method, $target // '/', $headers, $body);
}

# POST an object as JSON; the response has the decoded answer in {json}.
sub http_json
{
	my ($url, $object, $headers) = @_;
	my $body = ref $object ? JSON::PP->new->canonical->utf8->encode($object) : $object;
	my %pairs = my @pairs = _pairs($headers);
	unshift @pairs, 'Content-Type' => 'application/json' if !grep { lc eq 'content-type' } keys %pairs;
	my $r = http('POST', $url, \@pairs, $body);
	$r->{json} = eval { JSON::PP->new->utf8->allow_nonref->decode($r->{body}) };
	return $r;
}

# ---- Many at once ----

sub http_many
{
	my ($requests, %o) = @_;
	my $loop = EG::Loop->new;
	my $max = $o{connections} // 1000;
	my $timeout = $o{timeout} // $TIMEOUT;
	my ($next, $open, $done) = (0, 0, 0);
	my (@results, $start_next);
	local $SIG{PIPE} = 'IGNORE';

	my $finish = sub {
		my ($c, $m) = @_;
		$loop->forget($c->{sock});
		CORE::close $c->{sock};
		$loop->cancel($c->{timer});
		$m->{ms} = (EG::Loop::now() - $c->{start}) * 1000;
		$m->{first_ms} = $c->{first_ms};
		$m->{start} = $c->{start};
		$results[ $c->{index} ] = $m;
		$open--;
		$done++;
		$o{on_done}->($c->{index}, $m) if $o{on_done};
		$start_next->();
		$loop->stop if $done == @$requests;
	};
	my $fail = sub {
		my ($c, $why) = @_;
		my $part = $c->{parser}->partial // {};
		$finish->($c, { headers => {}, body => '', %$part, status => 0, complete => 0, error => $why });
	};
	my $reader = sub {
		my ($c) = @_;
		my $n = sysread $c->{sock}, my $data, 262144;
		if (!defined $n) {
			return if $! == EAGAIN || $! == EINTR;
			return $fail->($c, "read: $!");
		}
		$c->{first_ms} //= (EG::Loop::now() - $c->{start}) * 1000;
		my $m = eval { $n ? $c->{parser}->feed($data) : $c->{parser}->eof };
		return $fail->($c, $@) if $@;
		return $finish->($c, $m) if $m;
		$fail->($c, 'closed') if !$n;
	};
	my $writer = sub {
		my ($c) = @_;
		my $n = syswrite $c->{sock}, $c->{out}, 262144, $c->{sent};
		if (!defined $n) {
			return if $! == EAGAIN || $! == EINTR;
			# An answer may have come before the body was read.
			$loop->on_write($c->{sock});
			return;
		}
		$c->{sent} += $n;
		$loop->on_write($c->{sock}) if $c->{sent} == length $c->{out};
	};
	$start_next = sub {
		while ($open < $max && $next < @$requests) {
			my $index = $next++;
			my $q = $requests->[$index];
			my ($kind, @at) = _address($q->{url});
			socket my $sock, $kind eq 'unix' ? PF_UNIX : PF_INET, SOCK_STREAM, 0 or die "socket: $!";
			$sock->blocking(0);
			setsockopt $sock, IPPROTO_TCP, TCP_NODELAY, 1 if $kind eq 'tcp';
			my $c = {
				index => $index, sock => $sock, start => EG::Loop::now(), sent => 0,
				parser => EG::HTTP::Parser->new('response', no_body => ($q->{method} // 'GET') eq 'HEAD'),
				out => format_request($q->{method} // 'GET', $q->{target} // '/', $q->{headers}, $q->{body}),
			};
			$open++;
			$c->{timer} = $loop->after($timeout, sub { $fail->($c, 'timeout') });
			my $to = $kind eq 'unix' ? pack_sockaddr_un($at[0]) : pack_sockaddr_in($at[1], inet_aton($at[0]));
			my $connect;
			$connect = sub {
				if (connect($sock, $to) || $! == EINPROGRESS) {
					$loop->on_write($sock, sub { $writer->($c) });
					$loop->on_read($sock, sub { $reader->($c) });
				} elsif ($! == EAGAIN) { # a full backlog of a Unix socket
					$loop->after(0.005, $connect);
				} else {
					$fail->($c, "connect: $!");
				}
			};
			$loop->after(0, $connect);
		}
	};
	$start_next->();
	$loop->run if @$requests;
	return @results;
}

1;
