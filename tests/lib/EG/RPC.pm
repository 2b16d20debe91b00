package EG::RPC;

# MessagePack-RPC as common/rpc.h describes it, from outside: a blocking client for tests, and the
# framing that the fake gatewayd uses.
#
#   my $rpc = EG::RPC->new($socket_path);
#   my $result = $rpc->call('ping');                         # dies with "rpc CODE: message"
#   my ($result, $error) = $rpc->try_call('hash', [ mp_bin($body) ]);
#   my $id = $rpc->start('request', [...]);                  # then $rpc->message, $rpc->wait_for($id)
#   my ($result, $body, $error) = $rpc->call_with_body('request', [...], $body);
#
# Messages: [type, ...] as decoded: response [1, id, error, result], notification [2, method, params].

use strict;
use warnings;
use Errno qw(EAGAIN EINTR);
use IO::Socket::UNIX;
use Socket qw(SOCK_STREAM);
use Time::HiRes ();

use EG::Build qw($TIMEOUT);
use EG::MsgPack;

use constant { REQUEST => 0, RESPONSE => 1, NOTIFY => 2, ANSWER_CREDIT => 256 << 10, CHUNK => 64 << 10 };

sub new
{
	my ($class, $path, %o) = @_;
	my $sock = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $path) or die "connect to $path: $!";
	$sock->blocking(0);
	return bless { sock => $sock, in => '', next_id => 1, waiting => {}, timeout => $o{timeout} // $TIMEOUT }, $class;
}

sub sock { return $_[0]{sock} }
sub close { my ($self) = @_; CORE::close $self->{sock}; return }

sub send_raw
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
			my $v = '';
			vec($v, fileno($self->{sock}), 1) = 1;
			my $left = $deadline - Time::HiRes::time();
			die "timeout\n" if $left <= 0 || !select undef, $v, undef, $left;
		} else {
			die "rpc write: $!\n";
		}
	}
	return;
}

sub send_message { my ($self, @m) = @_; return $self->send_raw(mp_pack(\@m)) }
sub notify { my ($self, $method, $params) = @_; return $self->send_message(NOTIFY, $method, $params // []) }

sub start
{
	my ($self, $method, $params) = @_;
	my $id = $self->{next_id}++;
	$self->send_message(REQUEST, $id, $method, $params // []);
	return $id;
}

# The next message, whatever it is; undef when the peer closed; dies after the timeout.
sub message
{
	my ($self, $timeout) = @_;
	my $deadline = Time::HiRes::time() + ($timeout // $self->{timeout});
	while (1) {
		if (length $self->{in}) {
			my ($m, $used) = mp_unpack_one(\$self->{in}, 0);
			if (defined $used) {
				substr($self->{in}, 0, $used) = '';
				return $m;
			}
		}
		my $n = sysread $self->{sock}, $self->{in}, 1 << 20, length $self->{in};
		next if $n;
		return undef if defined $n;
		die "rpc read: $!\n" if $! != EAGAIN && $! != EINTR;
		my $v = '';
		vec($v, fileno($self->{sock}), 1) = 1;
		my $left = $deadline - Time::HiRes::time();
		die "timeout\n" if $left <= 0 || !select $v, undef, undef, $left;
	}
}

# The response to $id: [1, id, error, result]. Others and notifications seen meanwhile are kept.
sub wait_for
{
	my ($self, $id) = @_;
	while (!$self->{waiting}{$id}) {
		my $m = $self->message // die "rpc: peer closed\n";
		if ($m->[0] == RESPONSE) {
			$self->{waiting}{ $m->[1] // 'nil' } = $m;
		} else {
			push @{ $self->{notifications} }, $m;
		}
	}
	return delete $self->{waiting}{$id};
}

sub try_call
{
	my ($self, $method, $params) = @_;
	my $m = $self->wait_for($self->start($method, $params));
	return ($m->[3], $m->[2]);
}

sub call
{
	my ($self, $method, $params) = @_;
	my ($result, $error) = $self->try_call($method, $params);
	die "rpc $error->[0]: $error->[1]\n" if $error;
	return $result;
}

# A call whose request body and answer may travel as chunks under credit. $body undef: no chunks are
# sent. Returns (result, data of the answer's chunks or undef, error). $is_chunked->($result) says
# whether chunks follow.
sub call_with_body
{
	my ($self, $method, $params, $body, $is_chunked) = @_;
	my $id = $self->start($method, $params);
	my ($result, $data, $sent) = (undef, undef, 0);
	while (1) {
		my $m = $self->message // die "rpc: peer closed\n";
		if ($m->[0] == RESPONSE && $m->[1] == $id) {
			return ($result, $data, $m->[2]) if $m->[2];
			$result = $m->[3];
			return ($result, undef, undef) if !$is_chunked || !$is_chunked->($result);
			$data = '';
		} elsif ($m->[0] == NOTIFY && $m->[2][0] == $id) {
			my ($name, $p) = @$m[ 1, 2 ];
			if ($name eq 'credit' && defined $body) {
				my $credit = $p->[1];
				while ($credit > 0 && $sent < length $body) {
					my $n = $credit < CHUNK ? $credit : CHUNK;
					my $part = substr $body, $sent, $n;
					$sent += length $part;
					$credit -= length $part;
					$self->notify('chunk', [ $id, mp_bin($part), $sent == length $body ? JSON::PP::true() : JSON::PP::false() ]);
				}
			} elsif ($name eq 'chunk') {
				$data .= $p->[1];
				return ($result, $data, undef) if $p->[2];
				$self->notify('credit', [ $id, length $p->[1] ]) if length $p->[1];
			} elsif ($name eq 'cancel') {
				return ($result, $data, [ 6, 'cancelled' ]);
			}
		}
	}
}

1;
